"""The engine without HTTP: the collaborators that the handlers share, and the background tasks."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog
from temporalio.client import Client

from activities.notices.reporting import AlertReporter
from activities.sweep_watchdog import SweepWatchdog
from engine.alerts import AlertWatch
from engine.api.keys import Accounts
from engine.request_log import RequestLog
from engine.routing.directory import Directory, end_held_calls
from engine.routing.dispatcher import Dispatcher
from engine.routing.endpoint import Endpoint
from engine.routing.ticket_issuer import TicketIssuer
from engine.settings import EngineSettings
from engine.temporal.endpoint_watcher import EndpointWatcher
from engine.temporal.log_throttle import LogThrottle
from engine.temporal.outage_notices import OutageNotices
from engine.temporal.rpc_errors import TEMPORAL_FAULTS
from engine.temporal.signal_sender import SignalSender
from stoker_wire.errors.problem import Problem

if TYPE_CHECKING:  # loads OpenTelemetry
    from stoker_wire.tracing.tracer import Tracing

log = structlog.get_logger("engine")

SWEEP_SECONDS = 1.0
SLICE = 50
"""Endpoints swept before other tasks run; one or two milliseconds of work."""
QUEUE_TIMER_SECONDS = 0.02
"""Shortest delay of a timer that serves a queue."""
_MISSING_SECONDS = 1.0
"""An unknown name is looked up in Temporal at most once in this time, so that retries do not load Temporal."""
_MISSING_MAX = 1000
_INDEX_MASK = (1 << 53) - 1
"""JSON numbers are exact up to 2^53 in every client."""
_INDICES_DRAWN = 512
"""At a time: a system call takes longer than all else of a draw."""
_drawn: list[int] = []


def draw_index() -> int:
    """A random request index or reqnum, 1 to 2^53 - 1. Random numbers need no agreement between engines."""
    if not _drawn:
        _drawn.extend(memoryview(secrets.token_bytes(8 * _INDICES_DRAWN)).cast("Q"))
    return _drawn.pop() & _INDEX_MASK or 1


class Engine:
    """Soft state of all endpoints and the tasks that keep it current. All of it can be rebuilt after a restart."""

    def __init__(
        self,
        settings: EngineSettings,
        client: Client,
        *,
        tracing: "Tracing | None" = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`tracing` None: no request is traced."""
        self.settings = settings
        self.tracing = tracing
        self.client = client
        self.engine_id = f"engine-{secrets.token_hex(6)}"
        self.started_at = now()
        self.accounts = Accounts(settings.accounts, settings.accounts_previous)
        self.ticket_issuer = TicketIssuer(
            secrets=settings.secrets, rsa_private_key_pem=settings.rsa_private_key_pem
        )
        self.request_log = None if settings.request_log is None else RequestLog(settings.request_log)
        self.dispatcher = Dispatcher(
            limits=settings.limits,
            timing=settings.timing,
            started_at=self.started_at,
            draw=draw_index,
            on_urgent=self._flush_signals,
            on_later=self._serve_queue_later,
            on_ended=None if self.request_log is None else self.request_log.record,
        )
        self.directory = Directory(
            secrets=settings.secrets,
            timing=settings.timing,
            limits=settings.limits,
            dispatcher=self.dispatcher,
        )
        self.endpoint_watcher = EndpointWatcher(client, self.directory, timing=settings.timing, now=now)
        self.signal_sender = SignalSender(
            client, self.directory, engine_id=self.engine_id, on_closed=self._check_closed, now=now
        )
        self.held_calls = 0
        self.stopping = False
        self._missing: dict[str, float] = {}
        """Until when an unknown endpoint name is not looked up again, in monotonic seconds."""
        self._queue_timers: dict[str, asyncio.TimerHandle] = {}
        """By endpoint name: serves its queue when a busy worker is expected to be nearly free."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._alert_reporter: AlertReporter | None = None

    def __repr__(self) -> str:
        return f"<Engine {self.engine_id} {self.directory!r}, {self.held_calls} calls held>"

    async def start(self) -> None:
        """Poll Temporal once and start the background tasks. Without Temporal the engine starts, but is not ready."""
        await self.endpoint_watcher.poll()
        for name, work in (
            ("endpoint_watcher", self.endpoint_watcher.run),
            ("signal_sender", self.signal_sender.run),
            ("sweep", self._sweep),
        ):
            self._run(_restarted(work, name), name)
        if self.request_log is not None:
            self._run(_restarted(self.request_log.run, "request_log"), "request_log")
        if self.settings.sweep is not None:
            watchdog = SweepWatchdog(
                self.client, self.settings.sweep, every_seconds=self.settings.sweep_ensure_seconds
            )
            self._run(_restarted(watchdog.run, "sweep_watchdog"), "sweep_watchdog")
        if self.settings.notices is not None:
            place = f"{socket.gethostname()}:{self.settings.port}"
            self._alert_reporter = AlertReporter(
                self.client, self.settings.notices, role="engine", place=place
            )
            self._run(_restarted(AlertWatch(self, self._alert_reporter).run, "alerts"), "alerts")
            silence = OutageNotices(
                self.settings.channels,
                self.settings.notices,
                place=place,
                silent_seconds=self.endpoint_watcher.silent_seconds,
            )
            self._run(_restarted(silence.run, "temporal_silence"), "temporal_silence")
        log.info("engine_started", engine_id=self.engine_id, endpoints=len(self.directory))

    def stop_holding(self) -> None:
        """End every held call, so that clients retry with another engine or with this one's successor."""
        self.stopping = True
        for endpoint in self.directory:
            end_held_calls(endpoint)

    async def close(self) -> None:
        """Stop the tasks and flush the request log."""
        self.stop_holding()
        for timer in self._queue_timers.values():
            timer.cancel()
        self._queue_timers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.signal_sender.close()
        if self._alert_reporter is not None:
            await self._alert_reporter.stop()
        if self.request_log is not None:
            for endpoint in self.directory:
                self.dispatcher.log_unfinished(endpoint)
            await self.request_log.flush()
        log.info("engine_stopped", engine_id=self.engine_id)

    def readiness(self) -> str:
        """Why the engine is not ready; empty: it is ready."""
        watcher = self.endpoint_watcher
        if self.stopping:
            return "the engine is stopping"
        if not watcher.has_read_all:
            error = watcher.last_error or "no answer yet"
            return f"the endpoints have not been read from Temporal yet ({error})"
        if watcher.is_stale():
            seconds = time.time() - watcher.polled_at
            return (
                f"Temporal has not answered for {seconds:.0f} s; routing continues with the last known state"
            )
        return ""

    async def find(self, name: str) -> Endpoint | None:
        """The endpoint of this name; asks Temporal about unknown names, because the state may be a second old.

        Raises:
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer.
        """
        endpoint = self.directory.named(name)
        if endpoint is not None or time.monotonic() < self._missing.get(name, 0.0):
            return endpoint
        await self.endpoint_watcher.refresh(name)
        endpoint = self.directory.named(name)
        if endpoint is None:
            if len(self._missing) >= _MISSING_MAX:
                self._missing.clear()
            self._missing[name] = time.monotonic() + _MISSING_SECONDS
        return endpoint

    async def find_owned(self, name: str, owner: str) -> Endpoint:
        """An account's endpoint by name; asks Temporal about unknown names.

        Raises:
            Problem: 404, the same for another account's endpoint and for none.
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer.
        """
        endpoint = await self.find(name)
        if endpoint is None or endpoint.memo.owner != owner:
            raise Problem(404, "no_such_endpoint", f"there is no endpoint named {name[:80]!r}")
        return endpoint

    def _flush_signals(self, endpoint: Endpoint) -> None:
        self.signal_sender.flush(endpoint)

    def _serve_queue_later(self, endpoint: Endpoint, seconds: float) -> None:
        if seconds >= SWEEP_SECONDS:
            return  # the next sweep serves the queue
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, QUEUE_TIMER_SECONDS)
        timer = self._queue_timers.get(endpoint.name)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._queue_timers[endpoint.name] = loop.call_at(due, self._serve_queue, endpoint)

    def _serve_queue(self, endpoint: Endpoint) -> None:
        self._queue_timers.pop(endpoint.name, None)
        if not endpoint.gone:
            self.dispatcher.serve_queue(endpoint, time.time())

    def _check_closed(self, endpoint: Endpoint) -> None:
        self._run(self._refresh(endpoint.name), f"refresh {endpoint.name}")

    async def _refresh(self, name: str) -> None:
        with contextlib.suppress(*TEMPORAL_FAULTS):
            await self.endpoint_watcher.refresh(name)

    async def _sweep(self) -> None:
        throttle = LogThrottle("sweep")
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for number, endpoint in enumerate(self.directory, start=1):
                try:
                    self.dispatcher.sweep(endpoint, time.time())
                except Exception as fault:  # noqa: BLE001 - a fault of one endpoint must not stop the others
                    throttle.log(endpoint.name, fault)
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _restarted(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Run a background loop, and start it again after a fault."""
    while True:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001 - the loop must not end
            log.error("engine_loop_failed", loop=name, error=f"{type(fault).__name__}: {fault}"[:300])
        await asyncio.sleep(SWEEP_SECONDS)
