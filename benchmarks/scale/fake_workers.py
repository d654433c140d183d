"""Ten thousand workers in one process: each reports on a connection of its own, as stoker's PyWorker does.

A worker reports at once when it becomes ready or idle, every second while its load changes, else every ten seconds. It
serves requests one by one at its perf, and reports their ends after its next report.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from benchmarks.engine.load import request_bytes
from benchmarks.scale.market import Rented, address_of
from stoker_pyworker.reporting.reports import Report

PERF = 100.0
MODEL_SECONDS = 2.0
"""Seconds from the start of the container to a loaded model."""
BUSY_SECONDS, CALM_SECONDS, IDLE_SECONDS = 1.0, 10.0, 0.25
"""`stoker_pyworker.reporting.reports`: report intervals in seconds: while busy, when idle, and after the last
request."""
_RETRY_SECONDS = 1.0


class FakeWorkers:
    """Every simulated worker, and the outcome of its requests."""

    def __init__(self, port: int, credentials: Callable[[Rented], tuple[str, str]]) -> None:
        self.port = port
        self._credentials = credentials
        self.workers: dict[int, SimWorker] = {}
        self.by_url: dict[str, SimWorker] = {}
        self.reports = 0
        self.refused = 0
        self.last_refusal = ""
        self.finished = 0
        self.acknowledged = 0
        self.lost_by_stop = 0

    def join(self, rented: Rented, *, loaded: bool) -> "SimWorker":
        """An instance runs: its worker starts to report."""
        worker = SimWorker(self, rented, *self._credentials(rented))
        self.workers[rented.id] = worker
        self.by_url[worker.url] = worker
        worker.start(loaded=loaded)
        return worker

    def leave(self, rented: Rented) -> None:
        """An instance stops."""
        worker = self.workers.pop(rented.id, None)
        if worker is not None:
            self.by_url.pop(worker.url, None)
            worker.stop()

    def close(self) -> None:
        """Closes the connection."""
        for worker in list(self.workers.values()):
            worker.stop()


class SimWorker(asyncio.Protocol):
    """One worker and its connection to the engine."""

    __slots__ = (
        "_answers",
        "_busy_until",
        "_changed",
        "_connecting",
        "_ended",
        "_fake_workers",
        "_held",
        "_path",
        "_report_at",
        "_reported_at",
        "_sent",
        "_stopped",
        "_telling",
        "_timer",
        "_token",
        "_transport",
        "endpoint",
        "error",
        "id",
        "loaded",
        "received",
        "url",
    )

    def __init__(self, fake_workers: FakeWorkers, rented: Rented, token: str, path: str) -> None:
        self.id = rented.id
        self.endpoint = rented.endpoint
        self.url = f"http://{address_of(rented.id)}:3000"
        self.loaded = False
        self.error = ""
        self.received = 0
        self._fake_workers = fake_workers
        self._token = token
        self._path = path
        self._transport: asyncio.Transport | None = None
        self._connecting = False
        self._held: dict[int, float] = {}
        self._ended: deque[int] = deque()
        self._answers: deque[Callable[[bool], None]] = deque()
        self._sent = 0
        self._changed = False
        self._stopped = self._telling = False
        self._busy_until = 0.0
        self._reported_at = self._report_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # lifecycle

    def start(self, *, loaded: bool) -> None:
        """Starts to report; a model that is not loaded yet takes its load time."""
        loop = asyncio.get_running_loop()
        self.loaded = loaded
        if not loaded:
            loop.call_later(MODEL_SECONDS, self._load)
        # workers that ran before report in any phase: spread over the ten seconds
        self._report_in((self.id * 0.618034 % 1.0) * CALM_SECONDS if loaded else 0.0)

    def stop(self) -> None:
        """Its container ends, and its requests are lost."""
        self._stopped = True
        self._fake_workers.lost_by_stop += len(self._held)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def fail(self, message: str) -> None:
        """Starts to report an error."""
        self.error = message
        self._report_in(0.03)

    def _load(self) -> None:
        self.loaded = True
        self._report_in(0.03)

    # requests

    def take(self, request_idx: int, cost: float) -> None:
        """A request with its ticket."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.received += 1
        self._held[request_idx] = cost
        self._busy_until = max(now, self._busy_until) + cost / PERF
        loop.call_at(self._busy_until, self._finish, request_idx)
        self._change(BUSY_SECONDS)

    def _finish(self, request_idx: int) -> None:
        if self._stopped:
            return
        del self._held[request_idx]
        self._ended.append(request_idx)
        self._fake_workers.finished += 1
        self._change(BUSY_SECONDS if self._held else IDLE_SECONDS)

    def _change(self, seconds: float) -> None:
        self._changed = True
        now = asyncio.get_running_loop().time()
        at = max(now + 0.03, self._reported_at + seconds)
        if at < self._report_at:
            self._report_in(at - now)

    # reports

    def _report_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._report_at = loop.time() + seconds
        self._timer = loop.call_later(seconds, self._report)

    def _report(self) -> None:
        if self._stopped:
            return
        if self._transport is None:
            if not self._connecting:
                self._connecting = True
                asyncio.get_running_loop().create_task(self._connect())
            return
        self._changed = False
        self._reported_at = asyncio.get_running_loop().time()
        self._post("/worker_status/", msgspec.json.encode(self.report()), self._reported)
        self._report_in(CALM_SECONDS)

    def report(self) -> Report:
        """Its state, as stoker's PyWorker reports it."""
        ready = self.loaded and not self.error
        return Report(
            id=self.id,
            mtoken=self._token,
            version="stoker-0.2.0",
            loadtime=MODEL_SECONDS if ready else 0.0,
            cur_load=sum(self._held.values()),
            new_load=0.0,
            rej_load=0.0,
            cur_perf=0.0,
            max_perf=PERF if ready else 0.0,
            error_msg=self.error,
            num_requests_working=len(self._held),
            num_requests_recieved=self.received,
            working_request_idxs=list(self._held),
            additional_disk_usage=0.0,
            disk_usage=14.2,
            url=self.url,
            draining=False,
            queued=max(0, len(self._held) - 1),
            gpus=(),
            end_report_seconds=0.0,
            incarnation=f"fake-{self.id}",
            uptime_seconds=0.0,
            download_seconds=0.0,
            provisional=False,
            error_everywhere=False,
            phase="",
            concurrency=1,
            running_load=0.0,
            running_seconds=0.0,
        )

    def _reported(self, accepted: bool) -> None:
        if not accepted:
            self._report_in(_RETRY_SECONDS)
            return
        if self._ended and not self._telling:
            self._tell()
        elif self._changed:
            self._report_in(BUSY_SECONDS)

    def _tell(self) -> None:
        items = [{"request_idx": idx, "success": True, "status": "Success"} for idx in self._ended]
        self._telling = True

        def done(accepted: bool) -> None:
            self._telling = False
            if accepted:
                for _ in items:
                    self._ended.popleft()
                self._fake_workers.acknowledged += len(items)
            self._report_in(BUSY_SECONDS if self._changed or self._ended else CALM_SECONDS)

        body = {"worker_id": self.id, "mtoken": self._token, "requests": items}
        self._post("/delete_requests/", msgspec.json.encode(body), done)

    def _post(self, path: str, body: bytes, then: Callable[[bool], None]) -> None:
        assert self._transport is not None
        self._answers.append(then)
        self._fake_workers.reports += 1
        self._transport.write(request_bytes(self._path + path, body))

    # connection

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", self._fake_workers.port)
        except OSError:
            self._connecting = False
            self._report_in(_RETRY_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first report."""
        self._transport = cast("asyncio.Transport", transport)
        self._connecting = False
        self._report()

    def connection_lost(self, exc: Exception | None) -> None:
        """A closed idle connection loses nothing; a report in progress is sent again."""
        self._transport = None
        pending, self._answers = self._answers, deque()
        if not self._stopped:
            for then in pending:
                then(False)

    def data_received(self, data: bytes) -> None:
        """Reads an answer. It has about a hundred bytes, and one call is in progress at a time, so it fits one
        segment."""
        accepted = data[9:12] == b"200"
        if not accepted:
            self._fake_workers.refused += 1
            self._fake_workers.last_refusal = f"{time.time():.1f} {data[:400]!r}"
        if self._answers:
            self._answers.popleft()(accepted)
