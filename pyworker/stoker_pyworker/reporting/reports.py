"""Reports to the engine: at once after important changes, every second under load, else every ten seconds."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from stoker_pyworker.model.gpu import GpuReading, Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.model.server.server_metrics import ModelReading
from stoker_pyworker.proxy.worker_queue import RunningRequest
from stoker_pyworker.reporting.request_counts import RequestCounts, Totals
from stoker_pyworker.ticket_clock import TicketClock
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.route import COST_MAX
from stoker_wire.workload import ServedRoute

log = structlog.get_logger(component="reports")

VERSION = "stoker-0.2.0"

_BUSY_SECONDS = 1.0
_CALM_SECONDS = 10.0
_COALESCE_SECONDS = 0.03
_END_GAP_SECONDS = 0.25
"""Minimum time between reports of ended requests: short requests end many times a second."""
_ENDS_REPORTED_SECONDS = 0.5
"""The delay that the engine may assume for the report of an ended request: the gap above plus transport."""
_RESPONSE_SECONDS_MAX = 10.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_FINISHED_PER_REPORT = 1000
_DROPPED_PER_REPORT = 10
_FINAL_STATUSES = frozenset({400, 413, 422})
"""Statuses that mean a retry of the same body cannot succeed."""
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
    concurrency: int
    gpus: tuple[GpuReading, ...]
    end_report_seconds: float
    running_load: float
    running_seconds: float
    incarnation: str
    uptime_seconds: float
    download_seconds: float
    provisional: bool
    error_everywhere: bool
    phase: str
    routes: tuple[dict[str, Any], ...] = ()
    models: tuple[str, ...] = ()
    model: ModelReading | None = None
    cur_capacity: float = 0.0
    max_capacity: float = 0.0


@dataclass(frozen=True, slots=True)
class _PostResult:
    """The engine's response to a report."""

    status: int
    """0: no response."""
    error: str
    """The response as text, for a log line."""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class Reporter:
    """Sends the changes since the last acknowledged report to the first engine that answers."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        *,
        worker_id: int,
        token: str,
        url: Callable[[], str],
        counts: RequestCounts,
        health: HealthState,
        gpus: Gpus,
        queued: Callable[[], int],
        running_request: Callable[[], RunningRequest | None],
        clock: TicketClock,
        report_now: asyncio.Event,
        routes: tuple[ServedRoute, ...] = (),
        concurrency: int = 0,
        models: Callable[[], tuple[str, ...]] = tuple,
        model: Callable[[], ModelReading | None] = lambda: None,
    ) -> None:
        """`report_now` is set by others to request a report at once."""
        self._engines = [
            (UpstreamPool(address, connections_max=2, idle_seconds_max=20.0), _path(address))
            for address in addresses
        ]
        self._worker_id = worker_id
        self._token = token
        self._url = url
        self._counts = counts
        self._health = health
        self._gpus = gpus
        self._queued = queued
        self._running_request = running_request
        self._clock = clock
        self._routes = tuple(route.model_dump() for route in routes)
        self._concurrency = concurrency
        self._models = models
        self._model = model
        self._report_now = report_now
        self._acknowledged = Totals()
        self._acknowledged_disk = _disk_gib()
        self._failures = 0
        self._last_attempt_at = float("-inf")
        self._ending = False
        self._end_timer: asyncio.TimerHandle | None = None

    # --- triggers

    def work_ended(self) -> None:
        """Report soon if the worker is now idle, or has started the next request of its queue."""
        if self._end_timer is None and self._end_matters():
            since = time.monotonic() - self._last_attempt_at
            wait = max(_COALESCE_SECONDS, _END_GAP_SECONDS - since)
            self._end_timer = asyncio.get_running_loop().call_later(wait, self._end_timer_expired)

    def _end_timer_expired(self) -> None:
        self._end_timer = None
        if self._counts.changed and self._end_matters():
            self._report_now.set()

    def _end_matters(self) -> bool:
        return self._counts.held == 0 or self._running_request() is not None

    # --- the loop

    async def run(self) -> None:
        """Report until `end` is called."""
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
                backoff = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS)) - 1]
                await self._pause(backoff * random.uniform(0.5, 1.0))

    def end(self) -> None:
        """Send a last report, then stop. A report in progress is completed, so that nothing is sent twice."""
        self._ending = True
        self._report_now.set()

    async def _pause(self, seconds: float) -> None:
        """Wait for a reason to report, at most `seconds`."""
        started = time.monotonic()
        while (passed := time.monotonic() - started) < seconds:
            busy = self._failures == 0 and (self._counts.changed or self._counts.unreported > 0)
            left = (_BUSY_SECONDS if busy else seconds) - passed
            if left <= 0:
                return
            try:
                # Polls for changes, so that the start of a request does not have to wake this task.
                async with asyncio.timeout(min(left, _BUSY_SECONDS / 2)):
                    await self._report_now.wait()
            except TimeoutError:
                continue
            if not self._ending:
                await asyncio.sleep(_COALESCE_SECONDS)
            return

    async def report(self) -> bool:
        """Send a report to the first engine that accepts it. False if none did; then nothing is acknowledged."""
        self._report_now.clear()
        self._last_attempt_at = time.monotonic()
        self._counts.changed = False
        totals, disk = self._counts.totals(), _disk_gib()
        body = msgspec.json.encode(self._status(totals, disk))
        for number, (pool, path) in enumerate(self._engines):
            result = await self._post(pool, path + "/worker_status/", body)
            if result.accepted:
                # Load that was cancelled after its report is subtracted from the next one.
                new = max(self._acknowledged.new, totals.new)
                self._acknowledged = Totals(new, totals.rejected, totals.served)
                self._acknowledged_disk = disk
                if number:
                    # Ask the engine that answers first from now on.
                    self._engines.insert(0, self._engines.pop(number))
                sent = await self._send_finished(pool, path)
                self._failures = 0 if sent else self._failures + 1
                return sent
            self._warn(pool, "/worker_status/", result)
        self._counts.changed = True
        self._failures += 1
        return False

    async def _send_finished(self, pool: UpstreamPool, path: str) -> bool:
        """Report the ended requests. False if the engine did not answer.

        A refused list is halved until one item remains, which is dropped: it would block all later items. A report
        drops a bounded number of items, so an engine that refuses everything is not flooded.
        """
        limit, dropped = _FINISHED_PER_REPORT, 0
        while self._counts.unreported and dropped < _DROPPED_PER_REPORT:
            mark, items = self._counts.next_finished(limit)
            body = {
                "worker_id": self._worker_id,
                "mtoken": self._token,
                "incarnation": self._health.incarnation,
                "requests": items,
            }
            result = await self._post(pool, path + "/delete_requests/", msgspec.json.encode(body))
            if result.accepted:
                self._counts.acknowledge(mark)
                limit = min(limit * 2, _FINISHED_PER_REPORT)
            elif result.status not in _FINAL_STATUSES:
                self._warn(pool, "/delete_requests/", result)
                return False
            elif len(items) > 1:
                limit = len(items) // 2
            else:
                self._counts.drop(mark)
                engine, request_idx = pool.authority.decode(), items[0].request_idx
                log.error(
                    "finished_request_refused", engine=engine, request_idx=request_idx, error=result.error
                )
                dropped += 1
        return True

    async def _post(self, pool: UpstreamPool, path: str, body: bytes) -> _PostResult:
        sent_at = time.time()
        try:
            response = await fetch(pool, "POST", path, body, seconds_max=_RESPONSE_SECONDS_MAX)
        except (UpstreamError, TimeoutError) as fault:
            return _PostResult(0, str(fault) or f"no answer within {_RESPONSE_SECONDS_MAX:.0f} s")
        text = response.body[:200].decode("utf-8", "replace")
        result = _PostResult(response.status, f"status {response.status}: {text}")
        if result.accepted:
            date, engine = response.head.header(b"date"), pool.authority.decode()
            self._clock.observe_date(date, engine=engine, sent_at=sent_at, received_at=time.time())
        return result

    def _warn(self, pool: UpstreamPool, path: str, result: _PostResult) -> None:
        """`path`: without the launch's own path, which is a secret."""
        if self._failures in (0, 10, 100):
            log.warning("report_failed", engine=pool.authority.decode(), path=path, error=result.error)

    def _status(self, totals: Totals, disk: float) -> Report:
        counts, health, acknowledged = self._counts, self._health, self._acknowledged
        running = self._running_request()
        return Report(
            id=self._worker_id,
            mtoken=self._token,
            version=VERSION,
            loadtime=health.load_seconds,
            cur_load=_clamped(counts.load),
            new_load=_clamped(totals.new - acknowledged.new),
            rej_load=_clamped(totals.rejected - acknowledged.rejected),
            cur_perf=_clamped(totals.served - acknowledged.served),
            max_perf=_clamped(health.perf),
            error_msg=health.error,
            num_requests_working=counts.held,
            num_requests_recieved=counts.received,
            working_request_idxs=counts.held_indices(),
            additional_disk_usage=disk - self._acknowledged_disk,
            disk_usage=disk,
            url=self._url(),
            draining=health.draining,
            queued=self._queued(),
            concurrency=self._concurrency,
            gpus=self._gpus.readings,
            end_report_seconds=_ENDS_REPORTED_SECONDS if running is not None else 0.0,
            running_load=_clamped(running.load) if running is not None else 0.0,
            running_seconds=running.seconds if running is not None else 0.0,
            incarnation=health.incarnation,
            uptime_seconds=time.monotonic() - health.started_at,
            download_seconds=health.download_seconds,
            provisional=health.provisional,
            error_everywhere=health.error_everywhere,
            phase="" if health.ready else health.phase,
            routes=self._routes,
            models=self._models(),
            model=self._model(),
        )

    def close(self) -> None:
        """Close the connections to the engines."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        for pool, _ in self._engines:
            pool.close()


def _clamped(load: float) -> float:
    """The load within the engine's limits. One value outside would fail this report and every later one."""
    return min(max(load, 0.0), COST_MAX)


def _path(address: str) -> str:
    """The path of an engine's address: `http://engine/w/17` reports to `/w/17/worker_status/`."""
    rest = address.partition("://")[2]
    slash = rest.find("/")
    return "" if slash < 0 else rest[slash:].rstrip("/")


def _disk_gib() -> float:
    return shutil.disk_usage("/").used / _GIB
