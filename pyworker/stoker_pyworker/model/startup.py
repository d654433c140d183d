"""Makes the worker ready (log line, probe, benchmark), then watches the model server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from stoker_pyworker.config import HandlerConfig, WorkerConfig
from stoker_pyworker.model import benchmark
from stoker_pyworker.model.benchmark import Benchmark, BenchmarkFailed
from stoker_pyworker.model.deferred_benchmark import DeferredBenchmark
from stoker_pyworker.model.gpu import Gpus
from stoker_pyworker.model.health import HealthState, Phase
from stoker_pyworker.model.model_process import ModelProcess
from stoker_pyworker.model.readiness import LogWatch, Probe
from stoker_pyworker.model.served_models import ServedModels
from stoker_pyworker.model.server.server_metrics import ServerMetrics
from stoker_pyworker.model.server.supervisor import ModelSupervisor, ServerFailure
from stoker_pyworker.proxy.routes import RouteIndex
from stoker_pyworker.reporting.request_counts import RequestCounts
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.security.loopback import is_loopback

log = structlog.get_logger(component="startup")

_RESTART_POLL_SECONDS = 0.2
_RETRY_SECONDS = 30.0
"""Delay after a failed benchmark, unless the model's log reports earlier that it is loaded."""


class Startup:
    """Two tasks: `run` makes the worker ready and then probes; `watch_log` reads the model's log."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        pool: UpstreamPool,
        routes: RouteIndex,
        health: HealthState,
        gpus: Gpus,
        health_path: str,
        model_settings: tuple[str, ...],
        directory: Path,
        serves_serial: Callable[[], bool],
        models: ServedModels,
        counts: RequestCounts,
        report_now: Callable[[], None],
    ) -> None:
        self._config = config
        self._pool = pool
        self._routes = routes
        self._health = health
        self._gpus = gpus
        self._model_settings = model_settings
        self._directory = directory
        self._log_loaded = asyncio.Event()
        self._has_model = any(handler.remote_function is None for handler in config.handlers)
        self._lifecycle_entered = False
        self._models = models
        self._serves_serial = serves_serial
        self._counts = counts
        self._deferred: DeferredBenchmark | None = None
        names = None if config.server is None else config.server.metrics
        self.metrics = (
            None if names is None else ServerMetrics(pool.separate_pool(1), names, changed=report_now)
        )
        self.supervisor = self._model_supervisor() if config.server is not None else None
        self._lists_models = any(
            handler.route.startswith("/v1/") and handler.remote_function is None
            for handler in config.handlers
        )
        self.probe = Probe(
            pool,
            config.model_healthcheck_url or health_path,
            serves_serial=serves_serial,
            is_serial=not any(handler.allow_parallel_requests for handler in config.handlers),
            send_request=self._send_benchmark_request,
        )

    @property
    def reads_log(self) -> bool:
        """Whether the log is followed."""
        return (
            bool(self._config.model_log_file)
            and self._config.lifecycle is None
            and self._config.server is None
        )

    @property
    def _waits_for_log(self) -> bool:
        """Whether a line of the log tells that the model is loaded."""
        return (self.reads_log or self.supervisor is not None) and bool(
            self._config.log_action_config.on_load
        )

    def _model_supervisor(self) -> ModelSupervisor:
        assert self._config.server is not None
        watch = self._log_watch()
        return ModelSupervisor(
            self._config.server,
            log_file=self._directory / (self._config.model_log_file or "model.log"),
            directory=self._directory,
            on_line=watch.evaluate,
            on_failed=self._model_server_failed,
            on_downloaded=self._health.downloaded,
            accepts_connections=self._accepts_connections,
        )

    def _model_server_failed(self, fault: ServerFailure) -> None:
        self._log_loaded.clear()
        self._health.enter(Phase.LOAD)
        self._health.failed("model process", fault.sentence, everywhere=fault.everywhere)

    async def run(self) -> None:
        """Make the worker ready, then watch model server and GPUs. Runs until cancelled."""
        find_gpus = asyncio.create_task(self._gpus.find())
        process_watch = (
            asyncio.create_task(self._watch_process()) if self.reads_log and self._is_local else None
        )
        try:
            if self._config.lifecycle is not None:
                self._lifecycle_entered = True
                await self._config.lifecycle.__aenter__()
            elif self._waits_for_log:
                await self._log_loaded.wait()
            await find_gpus
            perf = await self._measure_until_successful()
            if self._lists_models:
                await self._models.ask()
            # Without a benchmark, the declared perf is all there will be.
            self._health.loaded(perf, provisional=self._deferred is not None and self._deferred.measures)
        finally:
            find_gpus.cancel()
            if process_watch is not None:
                process_watch.cancel()
                self._health.recovered("model process")
        watches = [self._gpus.watch()]
        if self._has_model:
            watches.append(self.probe.watch(self._probe_healthy, self._probe_failed))
        if self._lists_models:
            watches.append(self._models.watch(skip=self._serves_serial))
        if self.metrics is not None:
            watches.append(self.metrics.watch(self._is_busy))
        if self._deferred is not None:
            watches.append(self._deferred.run())
        await asyncio.gather(*watches)

    @property
    def _is_local(self) -> bool:
        """Whether the model server runs on this machine, so that its processes are visible."""
        return self._has_model and is_loopback(self._pool.host)

    async def _accepts_connections(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._pool.host, self._pool.port)
        except OSError:
            return False
        writer.close()
        return True

    async def _watch_process(self) -> None:
        process = ModelProcess(
            self._directory / (self._config.model_log_file or ""),
            accepts_connections=self._accepts_connections,
        )
        await process.watch(
            lambda fault: self._health.failed("model process", fault),
            lambda: self._health.recovered("model process"),
        )

    async def exit_lifecycle(self) -> None:
        """Exit the user's lifecycle, even if entering it was interrupted: it may have started a process."""
        if not self._lifecycle_entered or self._config.lifecycle is None:
            return
        try:
            await self._config.lifecycle.__aexit__(None, None, None)
        except Exception as fault:  # noqa: BLE001 - user code; the worker ends regardless
            log.warning("lifecycle_exit_failed", error=repr(fault)[:200])

    async def _measure_until_successful(self) -> float:
        """The perf. Waits for the model server again after each failed benchmark."""
        while True:
            # The log line may be too early or from an earlier start, so the probe decides.
            if self._has_model:
                await self._wait_until_healthy()
            self._log_loaded.clear()
            self._health.enter(Phase.BENCHMARK)
            try:
                perf = await self._perf()
            except BenchmarkFailed as fault:
                self._health.failed("benchmark", f"the benchmark failed: {fault}")
            else:
                self._health.recovered("benchmark")
                return perf
            try:
                async with asyncio.timeout(_RETRY_SECONDS):
                    await self._log_loaded.wait()
            except TimeoutError:
                continue

    async def watch_log(self) -> None:
        """Evaluate the model's log. Runs until cancelled."""
        await self._log_watch().run()

    def _log_watch(self) -> LogWatch:
        return LogWatch(
            Path(self._config.model_log_file or ""),
            self._config.log_action_config,
            loaded=self._log_line_loaded,
            failed=self._log_line_failed,
            read_error=self._log_read_error,
            phase=self._health.enter,
        )

    def _log_line_failed(self, line: str) -> None:
        """An error line counts while the model loads. Later one bad request may cause it, so a probe must confirm it."""
        if self._health.ready and self._has_model:
            self.probe.recheck_after(line)
        else:
            self._health.failed("log", f"the model's log says: {line}")

    def _log_line_loaded(self) -> None:
        self._log_loaded.set()
        self._health.recovered("log")

    def _log_read_error(self, fault: str) -> None:
        if fault and self._health.ready:
            log.warning("log_file_unreadable", error=fault)
        elif fault:
            self._health.failed("log file", fault)
        else:
            self._health.recovered("log file")

    async def _wait_until_healthy(self) -> None:
        while True:
            try:
                await self.probe.wait_until_healthy()
            except TimeoutError:
                log.warning("probe_timeout")
                continue
            if self._server_runs():
                return
            await asyncio.sleep(_RESTART_POLL_SECONDS)

    def _server_runs(self) -> bool:
        """Whether a healthy probe came from the worker's own model server. It is ready then."""
        if self.supervisor is None:
            return True
        if self.supervisor.running:
            self.supervisor.ready()
            self._health.recovered("model process")
        return self.supervisor.running

    def _probe_healthy(self) -> None:
        if self._server_runs():
            for source in ("probe", "connection", "log"):
                self._health.recovered(source)

    def _probe_failed(self, fault: str) -> None:
        self._health.failed("probe", fault)

    def model_failed(self, fault: UpstreamError) -> None:
        """A request got no answer from the model server: probe it now."""
        if fault.kind == "connect":
            self._health.failed("connection", str(fault))
        self.probe.recheck()

    def _is_busy(self) -> bool:
        return self._counts.held > 0

    def _is_limited(self) -> bool:
        """Whether the server works at its limit: one request at a time, or others wait inside it."""
        if not any(handler.allow_parallel_requests for handler in self._config.handlers):
            return self._is_busy()
        reading = None if self.metrics is None else self.metrics.reading
        return reading is not None and reading.waiting > 0

    async def _send_benchmark_request(self) -> str | None:
        handler = self._config.benchmark_handler
        return None if handler is None else await self._benchmark(handler).check_once()

    def _benchmark(self, handler: HandlerConfig) -> Benchmark:
        return Benchmark(self._pool, self._routes.exact[handler.route.encode()])

    async def _perf(self) -> float:
        """The worker's perf: from the cache on disk, an estimate that is replaced while it serves, or measured now."""
        handler = self._config.benchmark_handler
        initial = 0.0 if self._config.server is None else self._config.server.initial_perf
        if handler is None:
            self._defer(None, initial)
            return initial
        fingerprint = benchmark.fingerprint(
            handler, model=(self._config.model_name, *self._model_settings), gpus=self._gpus.names
        )
        perf = benchmark.load_cached(self._directory, fingerprint)
        if perf is not None:
            log.info("benchmark_cached", perf=round(perf, 3))
            return perf

        async def measure() -> float:
            measured = await self._benchmark(handler).measure()
            benchmark.save_cached(self._directory, fingerprint, measured)
            return measured

        if initial > 0:
            self._defer(measure, initial)
            return initial
        return await measure()

    def _defer(self, measure: Callable[[], Awaitable[float]] | None, perf: float) -> None:
        self._deferred = DeferredBenchmark(
            measure,
            perf=perf,
            busy=self._is_busy,
            limited=self._is_limited,
            served=lambda: self._counts.totals().served,
            changed=self._health.loaded,
        )
