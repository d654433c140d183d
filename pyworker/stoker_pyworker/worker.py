"""The worker: its parts put together, its life from start to drained."""

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from stoker_pyworker import benchmark, logs
from stoker_pyworker.admin import Admin
from stoker_pyworker.benchmark import Benchmark, BenchmarkFailed
from stoker_pyworker.config import ConfigError, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.gpu import Gpus
from stoker_pyworker.http.limits import Limits
from stoker_pyworker.http.outgoing import Pool
from stoker_pyworker.http.server import ClientConnection, HttpServer, Request
from stoker_pyworker.ledger import Ledger
from stoker_pyworker.proxy import Proxy
from stoker_pyworker.readiness import LogWatch, Probe
from stoker_pyworker.reports import VERSION, Reporter
from stoker_pyworker.sessions import Sessions
from stoker_pyworker.standing import Standing
from stoker_pyworker.tickets import TicketGate
from stoker_wire.problem import Problem
from stoker_wire.token import ticket_key

log = structlog.get_logger(room="worker")

_LAST_REPORT_SECONDS = 3.0


class Worker:
    """`Worker(WorkerConfig(...)).run()`: watches, benchmarks, proxies and reports one model server."""

    def __init__(self, config: WorkerConfig, *, limits: Limits | None = None) -> None:
        config.check()
        self.config = config
        self._limits = limits or Limits(body_bytes_max=config.body_bytes_max)

    def run(self, *, host: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Serve until drained; ends the process with status 0, or 2 when the environment is not usable."""
        logs.configure()
        try:
            settings = Environment.read(os.environ if environment is None else environment)
        except ConfigError as fault:
            log.error("environment_unusable", error=str(fault))
            sys.exit(2)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            sys.exit(runner.run(Life(self.config, settings, self._limits).live(host)))

    async def run_async(
        self, *, host: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """The same inside a running loop."""
        settings = Environment.read(os.environ if environment is None else environment)
        await Life(self.config, settings, self._limits).live(host)


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


class Life:
    """One run of a worker."""

    def __init__(self, config: WorkerConfig, settings: Environment, limits: Limits) -> None:
        self.config = config
        self.settings = settings
        self.pool = Pool(config.origin, connections_max=config.model_connections_max)
        self.ledger = Ledger()
        self.standing = Standing()
        self.gpus = Gpus()
        self.sessions = Sessions(self.pool, self.ledger, config.max_sessions or 0)
        gate = None
        if not settings.unsecured:
            gate = TicketGate(ticket_key(settings.master_token), settings.launch_id)
        self.proxy = Proxy(
            config,
            pool=self.pool,
            ledger=self.ledger,
            sessions=self.sessions,
            standing=self.standing,
            gate=gate,
            worker_id=settings.container_id,
        )
        self.server = HttpServer(self.serve, limits)
        self.admin = Admin(
            self.proxy,
            token=settings.master_token,
            directory=Path.cwd(),
            drain=self.standing.drain,
            status=self.status,
        )
        self.probe = Probe(self.pool, config.model_healthcheck_url or settings.health_path)
        self.reporter: Reporter | None = None
        self._said_loaded = asyncio.Event()
        self._drained = asyncio.Event()

    def serve(self, request: Request, client: ClientConnection) -> None:
        """One request of a client's: the model's, or the worker's own."""
        if self.settings.log_requests:
            log.info("request", method=request.method.decode(), path=request.path.decode("utf-8", "replace"))
        route = self.proxy.routes.get(request.path)
        if route is not None:
            if request.method != b"POST":
                raise _method_problem(b"POST")
            self.proxy.handle(route, request, client)
            return
        own = self.admin.routes.get(request.path)
        if own is None:
            raise Problem(404, "route_unknown", "this worker serves no such path")
        method, serve = own
        if request.method != method and not (method == b"GET" and request.method == b"HEAD"):
            raise _method_problem(method)
        serve(request, client)

    def _serve_sessions_only(self, request: Request, client: ClientConnection) -> None:
        """On the plain port for the model server on this machine."""
        if request.path != b"/session/end" or request.method != b"POST":
            raise Problem(404, "route_unknown", "this port serves POST /session/end only")
        self.admin.session_end(request, client)

    async def live(self, host: str | None) -> int:
        """From listening to drained. Returns the process's exit status."""
        tasks: list[asyncio.Task[None]] = []
        plain = HttpServer(self._serve_sessions_only, self.server.limits)
        try:
            port = await self._listen(host, plain)
        except (OSError, ssl.SSLError) as fault:
            log.error("cannot_listen", port=self.settings.worker_port, error=str(fault))
            await self._report_stillborn(f"the worker cannot listen on {self.settings.worker_port}: {fault}")
            return 1
        self.reporter = self._make_reporter(port)
        self.standing.changed = self.reporter.soon
        self.ledger.went_idle = self.reporter.went_idle
        self.standing.quiet = self.sessions.emptied = self._see_if_drained
        self.standing.doubted = self.probe.doubt
        self._catch_signals()
        log.info("listening", port=port, version=VERSION, secured=not self.settings.unsecured)

        def start(work: Coroutine[Any, Any, None], name: str) -> None:
            task = asyncio.get_running_loop().create_task(work, name=name)
            task.add_done_callback(self._task_ended)
            tasks.append(task)

        try:
            start(self.reporter.run(), "reports")
            start(self.sessions.sweep(), "sessions")
            start(self._become_ready(), "readiness")
            if self.config.model_log_file and self.config.lifecycle is None:
                start(self._watch_log(Path(self.config.model_log_file)), "log")
            await self._until_drained()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end(plain)
        return 0

    # --- the beginning

    async def _listen(self, host: str | None, plain: HttpServer) -> int:
        settings = self.settings
        tls = None
        if settings.use_ssl:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.tls_certificate, settings.tls_key)
        port = await self.server.listen(host, settings.worker_port, tls=tls)
        if settings.session_port:
            await plain.listen("127.0.0.1", settings.session_port)
        return port

    def _make_reporter(self, port: int) -> Reporter:
        settings = self.settings
        return Reporter(
            settings.report_addresses,
            worker_id=settings.container_id,
            token=settings.master_token,
            url=settings.url(port),
            ledger=self.ledger,
            standing=self.standing,
            gpus=self.gpus,
            queued=lambda: len(self.proxy.line),
        )

    async def _report_stillborn(self, message: str) -> None:
        """A worker that cannot even listen still says so to the engine."""
        self.standing.failed("start", message)
        reporter = self._make_reporter(self.settings.worker_port)
        await reporter.report()
        reporter.close()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, self._told_to_end, signal.Signals(number).name)
            except (NotImplementedError, RuntimeError, ValueError):
                # Not the main thread: whoever runs us there ends us by cancelling.
                return

    def _told_to_end(self, name: str) -> None:
        if self.standing.draining:
            log.info("ending_at_once", reason=f"{name} again")
            self._drained.set()
        self.standing.drain(name)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(fault)[:300])
            self.standing.failed(task.get_name(), f"the worker's {task.get_name()} failed: {fault!r:.200}")

    # --- readiness

    async def _become_ready(self) -> None:
        find_gpus = asyncio.get_running_loop().create_task(self.gpus.find())
        if self.config.lifecycle is not None:
            await self.config.lifecycle.__aenter__()
        elif self.config.model_log_file and self.config.log_action_config.on_load:
            await self._said_loaded.wait()
        if any(handler.remote_function is None for handler in self.config.handlers):
            await self._until_well()
        await find_gpus
        try:
            perf = await self._perf()
        except BenchmarkFailed as fault:
            self.standing.failed("benchmark", str(fault))
            return
        self.standing.loaded(perf)
        watch = asyncio.gather(
            self.gpus.watch(),
            self.probe.watch(self._well, lambda fault: self.standing.failed("probe", fault)),
        )
        await watch

    async def _until_well(self) -> None:
        while True:
            try:
                await self.probe.until_well()
                return
            except TimeoutError:
                log.warning("probe_slow")

    def _well(self) -> None:
        self.standing.recovered("probe")
        self.standing.recovered("connection")

    async def _perf(self) -> float:
        handler = self.config.benchmark_handler
        model = (self.config.model_name, *self.settings.model_words)
        mark = benchmark.fingerprint(handler, model=model, gpus=self.gpus.names)
        perf = benchmark.remembered(Path.cwd(), mark)
        if perf is not None:
            log.info("benchmark_remembered", perf=round(perf, 3))
            return perf
        perf = await Benchmark(self.pool, self.proxy.routes[handler.route.encode()]).measure()
        benchmark.remember(Path.cwd(), mark, perf)
        return perf

    async def _watch_log(self, path: Path) -> None:
        def loaded() -> None:
            self._said_loaded.set()
            self.standing.recovered("log")

        watch = LogWatch(
            path,
            self.config.log_action_config,
            loaded=loaded,
            failed=lambda fault: self.standing.failed("log", fault),
        )
        await watch.run()

    # --- the end

    def _see_if_drained(self) -> None:
        if self.standing.draining and not self.proxy.active and not self.sessions:
            self._drained.set()

    async def _until_drained(self) -> None:
        draining = asyncio.Event()
        told = self.standing.changed

        def changed() -> None:
            told()
            if self.standing.draining:
                draining.set()

        self.standing.changed = changed
        await draining.wait()
        self._see_if_drained()
        try:
            async with asyncio.timeout(self.settings.drain_seconds_max):
                await self._drained.wait()
        except TimeoutError:
            log.warning("drain_deadline", holding=self.ledger.held)

    async def _end(self, plain: HttpServer) -> None:
        self.server.closing = True
        self.sessions.end_all()
        for exchange in list(self.proxy.active):
            exchange.cut()
        await self.sessions.callbacks_done()
        if self.reporter is not None and self.settings.report_addresses:
            try:
                async with asyncio.timeout(_LAST_REPORT_SECONDS):
                    await self.reporter.report()
            except TimeoutError:
                log.warning("last_report_failed")
            self.reporter.close()
        await self.server.close()
        await plain.close()
        if self.config.lifecycle is not None:
            await self.config.lifecycle.__aexit__(None, None, None)
        self.pool.close()
        log.info("ended", received=self.ledger.received)

    def status(self) -> dict[str, Any]:
        """What `/pyworker/status` answers."""
        standing, ledger = self.standing, self.ledger
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
            "sessions": len(self.sessions),
            "tickets_remembered": 0 if self.proxy.gate is None else self.proxy.gate.remembered,
            "client_connections": self.server.connections,
            "model_connections": self.pool.opened,
            "gpus": [
                {name: getattr(gpu, name) for name in gpu.__struct_fields__} for gpu in self.gpus.readings
            ],
        }


def _method_problem(method: bytes) -> Problem:
    name = method.decode()
    return Problem(405, "method_wrong", f"this path takes {name}", headers={"Allow": name})
