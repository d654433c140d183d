"""What the engine is told: at once when it matters, every second while something changes, else every ten."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from stoker_pyworker.clock import TicketClock
from stoker_pyworker.http.client import ask
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.model.gpu import GpuReading, Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.proxy.worker_queue import QueueSlot
from stoker_pyworker.reporting.request_counts import RequestCounts, Totals
from stoker_wire.route import COST_MAX

log = structlog.get_logger(room="reports")

VERSION = "stoker-0.1.0"

_BUSY_SECONDS = 1.0
_CALM_SECONDS = 10.0
_COALESCE_SECONDS = 0.03
_END_GAP_SECONDS = 0.25
"""Short requests end many times a second; nobody needs to hear of each."""
_ENDS_TOLD_SECONDS = 0.5
"""What an engine may count on where every end is told: the gap above, the way, and some more."""
_ANSWER_SECONDS_MAX = 10.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_FINISHED_PER_REPORT = 1000
_DROPPED_PER_REPORT = 10
_REFUSALS = frozenset({400, 413, 422})
"""Statuses that say of what was sent that it will never be taken; every other one may be another tomorrow."""
_GIB = 2**30


class Report(msgspec.Struct):
    """The body of `POST /worker_status/` (`stoker_wire.worker_status.WorkerStatus`)."""

    id: int
    mtoken: str
    version: str
    loadtime: float
    cur_load: float
    new_load: float
    rej_load: float
    cur_perf: float
    max_perf: float
    error_msg: str
    num_requests_working: int
    num_requests_recieved: int
    working_request_idxs: list[int]
    additional_disk_usage: float
    disk_usage: float
    url: str
    draining: bool
    queued: int
    gpus: tuple[GpuReading, ...]
    ends_told_seconds: float
    running_load: float
    running_seconds: float
    incarnation: str
    uptime_seconds: float
    cur_capacity: float = 0.0
    max_capacity: float = 0.0


class _Said(NamedTuple):
    """What an engine said to a report."""

    status: int
    """0: nothing."""
    error: str
    """In words, for those that it did not take."""

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300


class Reporter:
    """Sends the ledger's differences; they count as told only when an engine has said so."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        *,
        worker_id: int,
        token: str,
        url: str,
        ledger: RequestCounts,
        standing: HealthState,
        gpus: Gpus,
        queued: Callable[[], int],
        turn: Callable[[], QueueSlot | None],
        clock: TicketClock,
    ) -> None:
        self._engines = [
            (Pool(address, connections_max=2, idle_seconds_max=20.0), _path(address)) for address in addresses
        ]
        self._worker_id = worker_id
        self._token = token
        self._url = url
        self._ledger = ledger
        self._standing = standing
        self._gpus = gpus
        self._queued = queued
        self._turn = turn
        self._clock = clock
        self._told = Totals()
        self._disk_told = self._disk = _disk_gib()
        self._failures = 0
        self._last_tried_at = float("-inf")
        self._ending = False
        self._urgent = asyncio.Event()
        self._end_timer: asyncio.TimerHandle | None = None

    # --- reasons to report

    def soon(self) -> None:
        """Something changed that the engine must know at once."""
        self._urgent.set()

    def work_ended(self) -> None:
        """Where it leaves the worker idle, or makes it begin the next in line, the engine should know in a moment."""
        if self._end_timer is None and (self._ledger.held == 0 or self._turn() is not None):
            since = time.monotonic() - self._last_tried_at
            wait = max(_COALESCE_SECONDS, _END_GAP_SECONDS - since)
            self._end_timer = asyncio.get_running_loop().call_later(wait, self._tell_end)

    def _tell_end(self) -> None:
        self._end_timer = None
        if self._ledger.changed and (self._ledger.held == 0 or self._turn() is not None):
            self._urgent.set()

    # --- the loop

    async def run(self) -> None:
        """Report for as long as the worker runs."""
        if not self._engines:
            log.info("no_reports", reason="REPORT_ADDR is not set")
            return
        while True:
            last = self._ending
            if await self.report():
                if last:
                    return
                await self._pause(_CALM_SECONDS)
            else:
                steps = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS)) - 1]
                await self._pause(steps * random.uniform(0.5, 1.0))

    def end(self) -> None:
        """Send one more report, of the end, and then stop; a report on its way is not cut, or it would be told twice."""
        self._ending = True
        self._urgent.set()

    async def _pause(self, seconds: float) -> None:
        """Wait for a reason to report, and at most so long."""
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            busy = self._failures == 0 and (self._ledger.changed or self._ledger.untold > 0)
            left = (_BUSY_SECONDS if busy else seconds) - passed
            if left <= 0:
                return
            try:
                # Short looks: a request that starts does not have to wake this task.
                async with asyncio.timeout(min(left, _BUSY_SECONDS / 2)):
                    await self._urgent.wait()
            except TimeoutError:
                continue
            if not self._ending:
                await asyncio.sleep(_COALESCE_SECONDS)
            return

    async def report(self) -> bool:
        """Tell the first engine that listens; False when none did, and then nothing counts as told."""
        self._urgent.clear()
        self._last_tried_at = time.monotonic()
        self._ledger.changed = False
        totals, disk = self._ledger.totals(), _disk_gib()
        status = msgspec.json.encode(self._status(totals, disk))
        for number, (pool, path) in enumerate(self._engines):
            said = await self._post(pool, path + "/worker_status/", status)
            if said.taken:
                # What was cancelled after it was told is taken off what comes next.
                new = max(self._told.new, totals.new)
                self._told = Totals(new, totals.rejected, totals.served)
                self._disk_told = disk
                if number:
                    # The one that listens is asked first from now on.
                    self._engines.insert(0, self._engines.pop(number))
                told = await self._tell_finished(pool, path)
                self._failures = 0 if told else self._failures + 1
                return told
            self._warn(pool, path + "/worker_status/", said)
        self._ledger.changed = True
        self._failures += 1
        return False

    async def _tell_finished(self, pool: Pool, path: str) -> bool:
        """Tell of the requests that ended; False when the engine did not listen.

        What it refuses is sent in halves, down to the one that it will not have: that one is dropped, or it would be sent for
        ever, and hold up all that ended after it. An engine that refuses them all is not overrun: some a report.
        """
        most, dropped = _FINISHED_PER_REPORT, 0
        while self._ledger.untold and dropped < _DROPPED_PER_REPORT:
            mark, items = self._ledger.finished(most)
            body = {
                "worker_id": self._worker_id,
                "mtoken": self._token,
                "incarnation": self._standing.incarnation,
                "requests": items,
            }
            said = await self._post(pool, path + "/delete_requests/", msgspec.json.encode(body))
            if said.taken:
                self._ledger.told(mark)
                most = min(most * 2, _FINISHED_PER_REPORT)
            elif said.status not in _REFUSALS:
                self._warn(pool, path + "/delete_requests/", said)
                return False
            elif len(items) > 1:
                most = len(items) // 2
            else:
                self._ledger.give_up(mark)
                engine, request_idx = pool.authority.decode(), items[0].request_idx
                log.error("end_refused", engine=engine, request_idx=request_idx, error=said.error)
                dropped += 1
        return True

    async def _post(self, pool: Pool, path: str, body: bytes) -> _Said:
        asked_at = time.time()
        try:
            answer = await ask(pool, "POST", path, body, seconds_max=_ANSWER_SECONDS_MAX)
        except (OriginFault, TimeoutError) as fault:
            return _Said(0, str(fault) or f"no answer within {_ANSWER_SECONDS_MAX:.0f} s")
        said = _Said(answer.status, f"status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")
        if said.taken:
            date, engine = answer.head.header(b"date"), pool.authority.decode()
            self._clock.hear(date, engine=engine, asked_at=asked_at, heard_at=time.time())
        return said

    def _warn(self, pool: Pool, path: str, said: _Said) -> None:
        if self._failures in (0, 10, 100):
            log.warning("report_failed", engine=pool.authority.decode(), path=path, error=said.error)

    def _status(self, totals: Totals, disk: float) -> Report:
        ledger, standing, told = self._ledger, self._standing, self._told
        turn = self._turn()
        return Report(
            id=self._worker_id,
            mtoken=self._token,
            version=VERSION,
            loadtime=standing.load_seconds,
            cur_load=_taken(ledger.load),
            new_load=_taken(totals.new - told.new),
            rej_load=_taken(totals.rejected - told.rejected),
            cur_perf=_taken(totals.served - told.served),
            max_perf=_taken(standing.perf),
            error_msg=standing.error,
            num_requests_working=ledger.held,
            num_requests_recieved=ledger.received,
            working_request_idxs=ledger.held_indices(),
            additional_disk_usage=disk - self._disk_told,
            disk_usage=disk,
            url=self._url,
            draining=standing.draining,
            queued=self._queued(),
            gpus=self._gpus.readings,
            ends_told_seconds=_ENDS_TOLD_SECONDS if turn is not None else 0.0,
            running_load=_taken(turn.load) if turn is not None else 0.0,
            running_seconds=turn.seconds if turn is not None else 0.0,
            incarnation=standing.incarnation,
            uptime_seconds=time.monotonic() - standing.started_at,
        )

    def close(self) -> None:
        """Close the connections to the engines."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        for pool, _ in self._engines:
            pool.close()


def _taken(load: float) -> float:
    """The load as an engine takes it: one figure beyond what it takes would have this report, and every later one, refused."""
    return min(max(load, 0.0), COST_MAX)


def _path(address: str) -> str:
    """The path part of an engine's address: `http://engine/w/17` reports to `/w/17/worker_status/`."""
    rest = address.partition("://")[2]
    slash = rest.find("/")
    return "" if slash < 0 else rest[slash:].rstrip("/")


def _disk_gib() -> float:
    return shutil.disk_usage("/").used / _GIB
