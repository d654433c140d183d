"""The worker: its components and its lifecycle from start to drained."""

import asyncio
import os
import signal
import ssl
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from stoker_pyworker import logs
from stoker_pyworker.config import ConfigError, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.management_api import ManagementApi
from stoker_pyworker.model.gpu import Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.model.served_models import ServedModels
from stoker_pyworker.model.startup import Startup
from stoker_pyworker.proxy.jobs import PREFIX as JOB_PREFIX
from stoker_pyworker.proxy.jobs import Jobs
from stoker_pyworker.proxy.request_proxy import RequestProxy
from stoker_pyworker.proxy.routes import PreparedRoute, RouteIndex, method_problem
from stoker_pyworker.proxy.sessions import Sessions
from stoker_pyworker.proxy.tickets import TicketVerifier
from stoker_pyworker.proxy.worker_queue import WorkerQueue
from stoker_pyworker.reporting.reports import VERSION, Reporter
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts
from stoker_pyworker.reporting.traces import RequestTraces
from stoker_pyworker.server_config import STARTUP_SECONDS_MAX, ModelServerConfig
from stoker_pyworker.ticket_clock import TicketClock
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.limits import Limits, raise_files_max
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.server import HttpServer
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.security import cross_origin
from stoker_wire.security.token import ticket_key
from stoker_wire.tracing.start import TracingUnavailable, start_tracing

if TYPE_CHECKING:  # loads OpenTelemetry
    from stoker_wire.tracing.tracer import Tracing

log = structlog.get_logger(component="worker")

_ENDING = Problem(503, "worker_ending", "this worker stopped before the answer was complete; route again")
_NOT_IN_JOB = Problem(
    403,
    "route_not_in_job",
    "calls of a job may use only routes with in_job; route this request on its own, or declare the route so",
)
_LAST_REPORT_SECONDS = 3.0
_FLUSH_SECONDS = 5.0


class Worker:
    """`Worker(WorkerConfig(...)).run()`: proxies, benchmarks, watches and reports one model server."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        startup_seconds_max: float = STARTUP_SECONDS_MAX,
        limits: Limits | None = None,
    ) -> None:
        """`command` is the model server's program and arguments: the worker runs it. `env` are further variables for it.

        Raises:
            ConfigError: with every error of the configuration.
        """
        if command is not None:
            if isinstance(command, str):
                raise ConfigError(
                    f"command: expected a list such as ['vllm', 'serve', …], received {command!r}"
                )
            server = ModelServerConfig(
                command=tuple(command), env=dict(env or {}), startup_seconds_max=startup_seconds_max
            )
            config = replace(config, server=server)
        config.check()
        self._config = config
        self._limits = limits or Limits(body_bytes_max=config.body_bytes_max)

    def run(self, *, host: str | None = None) -> None:
        """Serve until drained, then exit: 0 drained, 1 cannot listen, 2 invalid environment."""
        logs.configure()
        try:
            settings = Environment.read(os.environ)
            tracing = _tracing()
        except (ConfigError, TracingUnavailable) as fault:
            log.error("environment_invalid", error=str(fault))
            sys.exit(2)
        raise_files_max()
        runtime = WorkerRuntime(self._config, settings, self._limits, tracing=tracing)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(runtime.serve(host, catch_signals=True))
        if tracing is not None:
            tracing.close()
        sys.exit(status)

    async def run_async(self, *, host: str | None = None) -> None:
        """Serve inside a running event loop. Cancel the task to stop."""
        settings = Environment.read(os.environ)
        await WorkerRuntime(self._config, settings, self._limits, tracing=_tracing()).serve(host)


def _tracing() -> "Tracing | None":
    return start_tracing("stoker-pyworker", package="stoker-pyworker")


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


class WorkerRuntime:
    """One run of a worker: builds the components and connects them."""

    def __init__(
        self,
        config: WorkerConfig,
        settings: Environment,
        limits: Limits,
        *,
        directory: Path | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        directory = directory or Path.cwd()
        self.settings = settings
        report_now = asyncio.Event()
        self.health = HealthState(
            started_at=process_started_at(), secrets_to_hide=settings.secrets, on_change=report_now.set
        )
        self.gpus = Gpus(on_broken=lambda fault: self.health.failed("gpu", fault))
        self.clock = TicketClock()
        self.counts = RequestCounts(on_work_ended=self._work_ended)
        self.queue = WorkerQueue()
        self.pool = UpstreamPool(config.origin, connections_max=config.model_connections_max)
        self.routes = RouteIndex(PreparedRoute(handler, self.pool.authority) for handler in config.handlers)
        self.sessions = Sessions(
            self.pool, self.counts, self.queue, config.max_sessions or 0, on_empty=self._check_drained
        )
        self.jobs = Jobs(config, self.counts, on_empty=self._check_drained)
        self.models = ServedModels(self.pool.separate_pool(1))
        self.startup = Startup(
            config,
            pool=self.pool,
            routes=self.routes,
            health=self.health,
            gpus=self.gpus,
            health_path=settings.health_path,
            model_settings=settings.model_settings,
            directory=directory,
            serves_serial=lambda: self.queue.current is not None,
            models=self.models,
            counts=self.counts,
            report_now=report_now.set,
        )
        self.verifier: TicketVerifier | None = None
        if not settings.unsecured:
            self.verifier = TicketVerifier(ticket_key(settings.master_token), settings.launch_id)
        self.proxy = RequestProxy(
            config,
            pool=self.pool,
            routes=self.routes,
            jobs=self.jobs,
            counts=self.counts,
            sessions=self.sessions,
            queue=self.queue,
            health=self.health,
            verifier=self.verifier,
            clock=self.clock,
            worker_id=settings.container_id,
            on_model_failed=self.startup.model_failed,
            on_idle=self._check_drained,
            traces=None if tracing is None else RequestTraces(tracing, settings.launch_id),
        )
        self.reporter = Reporter(
            settings.report_addresses,
            worker_id=settings.container_id,
            token=settings.master_token,
            url=lambda: settings.url(self.port),
            counts=self.counts,
            health=self.health,
            gpus=self.gpus,
            queued=lambda: len(self.queue),
            running_request=self.proxy.running_request,
            clock=self.clock,
            report_now=report_now,
            routes=tuple(route.served for route in self.routes),
            concurrency=config.concurrency,
            models=lambda: self.models.names,
            model=lambda: None if self.startup.metrics is None else self.startup.metrics.reading,
        )
        self.management = ManagementApi(
            self.proxy,
            token=settings.master_token,
            directory=directory,
            drain=self.health.drain,
            status=self.status,
            version=VERSION,
        )
        self.server = HttpServer(self._handle, limits)
        self.local_server = HttpServer(self._handle_session_end, limits)
        self.port = 0
        """The listening port, once `listening` is set."""
        self.listening = asyncio.Event()
        self._drained = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self, host: str | None = None, *, catch_signals: bool = False) -> int:
        """Listen, serve and drain. Returns the exit status of the process."""
        try:
            self.port = await self._listen(host or self.settings.worker_host)
        except (OSError, ssl.SSLError) as fault:
            log.error("cannot_listen", port=self.settings.worker_port, error=str(fault))
            await self._report_start_failure(
                f"the worker cannot listen on port {self.settings.worker_port}: {fault}"
            )
            return 1
        if catch_signals:
            self._catch_signals()
        log.info("listening", port=self.port, version=VERSION, secured=not self.settings.unsecured)
        self.listening.set()
        reports = self._start(self.reporter.run(), "reports")
        try:
            self._start(self.sessions.sweep(), "sessions")
            self._start(self.jobs.sweep(), "jobs")
            self._start(self.startup.run(), "startup")
            if self.startup.supervisor is not None:
                self._start(self.startup.supervisor.run(), "model server")
            if self.startup.reads_log:
                self._start(self.startup.watch_log(), "log")
            await self._serve_until_drained()
        finally:
            await self._stop(reports)
        return 0

    # --- requests

    def _handle(self, request: Request, cycle: ResponseCycle) -> None:
        """Route a request to the proxy or to the management API."""
        if self.settings.log_requests:
            log.info("request", method=request.method.decode(), path=_logged(request.path))
        if self.settings.unsecured:
            self._refuse_web_pages(request)
        if request.path.startswith(JOB_PREFIX):
            self._handle_job(request, cycle)
            return
        own = None if request.path in self.routes.paths else self.management.routes.get(request.path)
        if own is None:
            route = self.routes.find(request)
            if route is None:
                self.proxy.reject_unrouted(request)
                raise self.routes.refusal(request)
            self.proxy.handle(route, request, cycle)
            return
        method, handler = own
        if request.method != method and not (method == b"GET" and request.method == b"HEAD"):
            self.proxy.reject_unrouted(request)
            raise method_problem(method.decode())
        handler(request, cycle)

    def _handle_job(self, request: Request, cycle: ResponseCycle) -> None:
        """A call of a job, whose ticket is in the path. The rest of the path is the route."""
        ticket, slash, path = request.path[len(JOB_PREFIX) :].partition(b"/")
        request.ticket = ticket.decode("latin-1")
        if not slash:
            self.management.job(request, cycle)
            return
        request.path = b"/" + path
        route = self.routes.find(request)
        if route is None or not route.in_job:
            raise self.routes.refusal(request) if route is None else _NOT_IN_JOB
        self.proxy.handle(route, request, cycle)

    def _refuse_web_pages(self, request: Request) -> None:
        """Refuse requests of web pages in a browser on this machine: without tickets nothing else would."""
        host, origin, site = (
            None if value is None else value.decode("latin-1")
            for value in map(request.header, (b"host", b"origin", b"sec-fetch-site"))
        )
        names = cross_origin.host_names(self.settings.public_host)
        refused = cross_origin.cross_origin_problem(
            request.method.decode(), host or "", origin, site, names=names
        )
        if refused is not None:
            raise refused

    def _handle_session_end(self, request: Request, cycle: ResponseCycle) -> None:
        """Serve the plain HTTP port for the model server on this machine."""
        if request.path != b"/session/end" or request.method != b"POST":
            raise Problem(404, "route_unknown", "this port serves POST /session/end only")
        self.management.session_end(request, cycle)

    # --- start

    async def _listen(self, host: str | None) -> int:
        settings = self.settings
        tls = None
        if settings.use_ssl:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.tls_certificate, settings.tls_key)
        port = await self.server.listen(host, settings.worker_port, tls=tls)
        if settings.session_port:
            await self.local_server.listen("127.0.0.1", settings.session_port)
        return port

    async def _report_start_failure(self, message: str) -> None:
        self.health.failed("start", message)
        await self.reporter.report()
        self.reporter.close()
        await self.server.close(0)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(fault)[:300])
            self.health.failed(task.get_name(), f"the worker's {task.get_name()} task failed: {fault!r:.200}")

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal_received, number.name)

    def _signal_received(self, name: str) -> None:
        # Only a second Ctrl-C stops at once. SIGTERM often arrives twice: from the process group and from a script.
        if self.health.draining and name == "SIGINT":
            log.info("stopping_at_once", reason="SIGINT while draining")
            self._drained.set()
        self.health.drain(name)

    # --- events of the components

    def _work_ended(self) -> None:
        self.reporter.work_ended()

    def _check_drained(self) -> None:
        held = len(self.proxy.active) + len(self.sessions) + len(self.jobs)
        if self.health.draining and not held:
            self._drained.set()

    # --- stop

    async def _serve_until_drained(self) -> None:
        """Serve until a drain begins, then until the running requests have ended, within the deadline."""
        await self.health.drain_began.wait()
        # Close connections after their response, so that clients route to another worker.
        self.server.closing = True
        self._check_drained()
        try:
            async with asyncio.timeout(self.settings.drain_seconds_max):
                await self._drained.wait()
        except TimeoutError:
            log.warning("drain_deadline", holding=self.counts.held)

    async def _stop(self, reports: asyncio.Task[None]) -> None:
        # A cancelled worker has not drained before.
        self.health.drain("stopping")
        self.server.closing = True
        self.sessions.end_all()
        self.jobs.end_all(_ENDING)
        for exchange in list(self.proxy.active):
            exchange.cancel(Outcome.ERROR, _ENDING)
        await self.sessions.wait_for_on_close()
        self.reporter.end()
        for task in self._tasks:
            if task is not reports:
                task.cancel()
        await asyncio.wait([reports], timeout=_LAST_REPORT_SECONDS)
        if not reports.done():
            log.warning("last_report_failed")
            reports.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reporter.close()
        # Written responses may still be in the send buffers.
        await self.server.close(_FLUSH_SECONDS)
        await self.local_server.close(0)
        await self.startup.exit_lifecycle()
        if self.startup.supervisor is not None:
            await self.startup.supervisor.stop()
        self.pool.close()
        log.info("ended", received=self.counts.received)

    def status(self) -> dict[str, Any]:
        """The response of `/pyworker/status`."""
        health, counts, verifier = self.health, self.counts, self.verifier
        return {
            "version": VERSION,
            "ready": health.refusal is None and not health.error,
            "draining": health.draining,
            "error": health.error,
            "perf": health.perf,
            "load_seconds": health.load_seconds,
            "load": counts.load,
            "requests_held": counts.held,
            "requests_queued": len(self.queue),
            "requests_received": counts.received,
            "requests_refused": counts.refused,
            "requests_unreported": counts.unreported,
            "requests_dropped": counts.dropped,
            "sessions": len(self.sessions),
            "jobs": len(self.jobs),
            "clock_ahead_seconds": self.clock.ahead_seconds,
            "tickets_used": 0 if verifier is None else verifier.used_count,
            "client_connections": self.server.connections,
            "model_connections": self.pool.open_count,
            "gpus": self.gpus.readings,
            "model": None if self.startup.metrics is None else self.startup.metrics.reading,
        }


def process_started_at() -> float:
    """Start of this process on the monotonic clock, so that the loading time includes imports."""
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return now


def _logged(path: bytes) -> str:
    """The path without the ticket of a job."""
    if path.startswith(JOB_PREFIX):
        path = JOB_PREFIX + b"***" + path[len(JOB_PREFIX) :].partition(b"/")[2]
    return path.decode("utf-8", "replace")
