"""The worker: its parts put together, its life from start to drained."""

import asyncio
import os
import signal
import ssl
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from stoker_pyworker import logs
from stoker_pyworker.admin import Admin
from stoker_pyworker.clock import TicketClock
from stoker_pyworker.config import ConfigError, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.limits import Limits, raise_files_max
from stoker_pyworker.http.outgoing import Pool
from stoker_pyworker.http.request import Request
from stoker_pyworker.http.server import HttpServer
from stoker_pyworker.model.gpu import Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.model.startup import Startup
from stoker_pyworker.proxy.admission import RequestProxy
from stoker_pyworker.proxy.sessions import Sessions
from stoker_pyworker.proxy.tickets import TicketGate
from stoker_pyworker.proxy.worker_queue import WorkerQueue
from stoker_pyworker.reporting.reports import VERSION, Reporter
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts
from stoker_wire.problem import Problem
from stoker_wire.security import cross_origin
from stoker_wire.security.token import ticket_key

log = structlog.get_logger(room="worker")

_ENDING = Problem(503, "worker_ending", "this worker's time was up before the answer; route again")
_LAST_REPORT_SECONDS = 3.0
_FLUSH_SECONDS = 5.0


class Worker:
    """`Worker(WorkerConfig(...)).run()`: watches, benchmarks, proxies and reports one model server."""

    def __init__(self, config: WorkerConfig, *, limits: Limits | None = None) -> None:
        config.check()
        self._config = config
        self._limits = limits or Limits(body_bytes_max=config.body_bytes_max)

    def run(self, *, host: str | None = None) -> None:
        """Serve until drained, then end the process: 0 drained, 1 cannot listen, 2 environment not usable."""
        logs.configure()
        try:
            settings = Environment.read(os.environ)
        except ConfigError as fault:
            log.error("environment_unusable", error=str(fault))
            sys.exit(2)
        raise_files_max()
        life = Life(self._config, settings, self._limits)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            sys.exit(runner.run(life.live(host, catch_signals=True)))

    async def run_async(self, *, host: str | None = None) -> None:
        """The same inside a running loop; whoever runs it ends it by cancelling."""
        await Life(self._config, Environment.read(os.environ), self._limits).live(host)


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


class Life:
    """One run of a worker."""

    def __init__(
        self, config: WorkerConfig, settings: Environment, limits: Limits, *, directory: Path | None = None
    ) -> None:
        self.config = config
        self.settings = settings
        directory = directory or Path.cwd()
        self.pool = Pool(config.origin, connections_max=config.model_connections_max)
        self.ledger = RequestCounts()
        self.clock = TicketClock()
        self.standing = HealthState(started_at=process_started_at(), hidden=settings.hidden)
        self.gpus = Gpus()
        self.line = WorkerQueue()
        self.sessions = Sessions(self.pool, self.ledger, self.line, config.max_sessions or 0)
        gate = None
        if not settings.unsecured:
            gate = TicketGate(ticket_key(settings.master_token), settings.launch_id)
        self.proxy = RequestProxy(
            config,
            pool=self.pool,
            ledger=self.ledger,
            sessions=self.sessions,
            line=self.line,
            standing=self.standing,
            gate=gate,
            clock=self.clock,
            worker_id=settings.container_id,
        )
        self.startup = Startup(
            config,
            pool=self.pool,
            routes=self.proxy.routes,
            standing=self.standing,
            gpus=self.gpus,
            health_path=settings.health_path,
            model_words=settings.model_words,
            directory=directory,
            serves_serial=lambda: self.proxy.line.served is not None,
        )
        self.admin = Admin(
            self.proxy,
            token=settings.master_token,
            directory=directory,
            drain=self.standing.drain,
            status=self.status,
            version=VERSION,
        )
        self.server = HttpServer(self._serve, limits)
        self.plain = HttpServer(self._serve_session_end, limits)
        self.port = 0
        """Where it listens, once `listening` is set."""
        self.listening = asyncio.Event()
        self._drained = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def live(self, host: str | None = None, *, catch_signals: bool = False) -> int:
        """From listening to drained. Returns the process's exit status."""
        try:
            self.port = await self._listen(host or self.settings.worker_host)
        except (OSError, ssl.SSLError) as fault:
            message = f"the worker cannot listen on port {self.settings.worker_port}: {fault}"
            log.error("cannot_listen", port=self.settings.worker_port, error=str(fault))
            await self._report_stillborn(message)
            return 1
        reporter = self._reporter()
        self.standing.changed = reporter.soon
        self.standing.doubted = self.startup.probe.doubt
        self.standing.quiet = self.sessions.emptied = self._see_if_drained
        self.ledger.work_ended = reporter.work_ended
        self.gpus.broken = lambda fault: self.standing.failed("gpu", fault)
        if catch_signals:
            self._catch_signals()
        log.info("listening", port=self.port, version=VERSION, secured=not self.settings.unsecured)
        self.listening.set()
        try:
            self._start(reporter.run(), "reports")
            self._start(self.sessions.sweep(), "sessions")
            self._start(self.startup.run(), "startup")
            if self.startup.reads_log:
                self._start(self.startup.watch_log(), "log")
            await self._until_drained()
        finally:
            await self._end(reporter)
        return 0

    # --- requests

    def _serve(self, request: Request, client: ClientConnection) -> None:
        """One request: for the model, or for the worker itself."""
        if self.settings.log_requests:
            log.info("request", method=request.method.decode(), path=request.path.decode("utf-8", "replace"))
        if self.settings.unsecured:
            self._refuse_web_pages(request)
        route = self.proxy.routes.get(request.path)
        if route is not None:
            if request.method != b"POST":
                self.proxy.give_back(request)
                raise _method_problem(b"POST")
            self.proxy.handle(route, request, client)
            return
        own = self.admin.routes.get(request.path)
        if own is None:
            self.proxy.give_back(request)
            raise Problem(404, "route_unknown", "this worker serves no such path")
        method, serve = own
        if request.method != method and not (method == b"GET" and request.method == b"HEAD"):
            self.proxy.give_back(request)
            raise _method_problem(method)
        serve(request, client)

    def _refuse_web_pages(self, request: Request) -> None:
        """Without tickets and tokens nothing else keeps a page in a browser of this machine out."""
        fields = [
            None if value is None else value.decode("latin-1")
            for value in map(request.header, (b"host", b"origin", b"sec-fetch-site"))
        ]
        host, origin, site = fields
        names = cross_origin.host_names(self.settings.public_host)
        refused = cross_origin.cross_origin_problem(
            request.method.decode(), host or "", origin, site, names=names
        )
        if refused is not None:
            raise refused

    def _serve_session_end(self, request: Request, client: ClientConnection) -> None:
        """On the plain port, for the model server on this machine."""
        if request.path != b"/session/end" or request.method != b"POST":
            raise Problem(404, "route_unknown", "this port serves POST /session/end only")
        self.admin.session_end(request, client)

    # --- the beginning

    async def _listen(self, host: str | None) -> int:
        settings = self.settings
        tls = None
        if settings.use_ssl:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.tls_certificate, settings.tls_key)
        port = await self.server.listen(host, settings.worker_port, tls=tls)
        if settings.session_port:
            await self.plain.listen("127.0.0.1", settings.session_port)
        return port

    def _reporter(self) -> Reporter:
        settings = self.settings
        return Reporter(
            settings.report_addresses,
            worker_id=settings.container_id,
            token=settings.master_token,
            url=settings.url(self.port),
            ledger=self.ledger,
            standing=self.standing,
            gpus=self.gpus,
            queued=lambda: len(self.proxy.line),
            turn=self.proxy.turn,
            clock=self.clock,
        )

    async def _report_stillborn(self, message: str) -> None:
        """A worker that cannot even listen still says so to the engine."""
        self.standing.failed("start", message)
        reporter = self._reporter()
        await reporter.report()
        reporter.close()
        await self.server.close(0)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(fault)[:300])
            self.standing.failed(task.get_name(), f"the worker's {task.get_name()} failed: {fault!r:.200}")

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end, number.name)

    def _told_to_end(self, name: str) -> None:
        # A person's second Ctrl-C. A second SIGTERM is common: to the process group, and from the script that had it too.
        if self.standing.draining and name == "SIGINT":
            log.info("ending_at_once", reason="SIGINT came while draining")
            self._drained.set()
        self.standing.drain(name)

    # --- the end

    def _see_if_drained(self) -> None:
        if self.standing.draining and not self.proxy.active and not len(self.sessions):
            self._drained.set()

    async def _until_drained(self) -> None:
        """Serve; then finish what runs, within the deadline."""
        await self.standing.drain_began.wait()
        # Every answer now closes its connection, so that clients look for another worker.
        self.server.closing = True
        self._see_if_drained()
        try:
            async with asyncio.timeout(self.settings.drain_seconds_max):
                await self._drained.wait()
        except TimeoutError:
            log.warning("drain_deadline", holding=self.ledger.held)

    async def _end(self, reporter: Reporter) -> None:
        # Whoever cancelled the worker did not drain it before.
        self.standing.drain("ending")
        self.server.closing = True
        self.sessions.end_all()
        for exchange in list(self.proxy.active):
            exchange.cut(Outcome.ERROR, _ENDING)
        await self.sessions.callbacks_done()
        reporter.end()
        telling, *others = self._tasks
        for task in others:
            task.cancel()
        await asyncio.wait([telling], timeout=_LAST_REPORT_SECONDS)
        if not telling.done():
            log.warning("last_report_failed")
            telling.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        reporter.close()
        # Answers that are written may still be on their way out.
        await self.server.close(_FLUSH_SECONDS)
        await self.plain.close(0)
        await self.startup.leave()
        self.pool.close()
        log.info("ended", received=self.ledger.received)

    def status(self) -> dict[str, Any]:
        """What `/pyworker/status` answers."""
        standing, ledger, gate = self.standing, self.ledger, self.proxy.gate
        return {
            "version": VERSION,
            "ready": standing.refusal is None and not standing.error,
            "draining": standing.draining,
            "error": standing.error,
            "perf": standing.perf,
            "load_seconds": standing.load_seconds,
            "load": ledger.load,
            "requests_held": ledger.held,
            "requests_queued": len(self.proxy.line),
            "requests_received": ledger.received,
            "requests_refused": ledger.refused,
            "requests_untold": ledger.untold,
            "requests_never_told": ledger.never_told,
            "sessions": len(self.sessions),
            "clock_ahead_seconds": self.clock.ahead,
            "tickets_remembered": 0 if gate is None else gate.remembered,
            "client_connections": self.server.connections,
            "model_connections": self.pool.opened,
            "gpus": self.gpus.readings,
        }


def process_started_at() -> float:
    """When this process started, on the monotonic clock: loading time counts imports too."""
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        born = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - born)
    except (OSError, ValueError, IndexError, AttributeError):
        return now


def _method_problem(method: bytes) -> Problem:
    name = method.decode()
    return Problem(405, "method_wrong", f"this path takes {name}", headers={"Allow": name})
