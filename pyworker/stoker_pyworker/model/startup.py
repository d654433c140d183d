"""From a model server that starts to a worker that is ready: log line, probe, benchmark; then watching it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from stoker_pyworker.config import WorkerConfig
from stoker_pyworker.http.outgoing import Pool
from stoker_pyworker.model import benchmark
from stoker_pyworker.model.benchmark import Benchmark, BenchmarkFailed
from stoker_pyworker.model.gpu import Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.model.model_process import ModelProcess
from stoker_pyworker.model.readiness import LogWatch, Probe
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_wire.security.loopback import is_loopback

log = structlog.get_logger(room="startup")


_RETRY_SECONDS = 30.0
"""After a failed benchmark, unless the model's log says sooner that it is loaded again."""


class Startup:
    """Two tasks: `run` makes the worker ready and then probes for ever; `watch_log` reads the model's log."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        pool: Pool,
        routes: dict[bytes, PreparedRoute],
        standing: HealthState,
        gpus: Gpus,
        health_path: str,
        model_words: tuple[str, ...],
        directory: Path,
        serves_serial: Callable[[], bool],
    ) -> None:
        self._config = config
        self._pool = pool
        self._routes = routes
        self._standing = standing
        self._gpus = gpus
        self._model_words = model_words
        self._directory = directory
        self._said_loaded = asyncio.Event()
        self._has_model = any(handler.remote_function is None for handler in config.handlers)
        self._entered = False
        self.probe = Probe(
            pool,
            config.model_healthcheck_url or health_path,
            serves_serial=serves_serial,
            is_serial=not any(handler.allow_parallel_requests for handler in config.handlers),
            attempt=self._attempt,
        )

    @property
    def reads_log(self) -> bool:
        """Whether there is a log to watch."""
        return bool(self._config.model_log_file) and self._config.lifecycle is None

    async def run(self) -> None:
        """Become ready, then keep watching model server and GPUs."""
        find_gpus = asyncio.create_task(self._gpus.find())
        supervision = asyncio.create_task(self._supervise()) if self.reads_log and self._is_local else None
        try:
            if self._config.lifecycle is not None:
                self._entered = True
                await self._config.lifecycle.__aenter__()
            elif self.reads_log and self._config.log_action_config.on_load:
                await self._said_loaded.wait()
            await find_gpus
            self._standing.loaded(await self._measured())
        finally:
            find_gpus.cancel()
            if supervision is not None:
                supervision.cancel()
                self._standing.recovered("model process")
        watches = [self._gpus.watch()]
        if self._has_model:
            watches.append(self.probe.watch(self._well, self._ill))
        await asyncio.gather(*watches)

    @property
    def _is_local(self) -> bool:
        """Whether the model server's processes can be seen from here."""
        return self._has_model and is_loopback(self._pool.host)

    async def _supervise(self) -> None:
        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection(self._pool.host, self._pool.port)
            except OSError:
                return False
            writer.close()
            return True

        process = ModelProcess(self._directory / (self._config.model_log_file or ""), answers=answers)
        await process.watch(
            lambda fault: self._standing.failed("model process", fault),
            lambda: self._standing.recovered("model process"),
        )

    async def leave(self) -> None:
        """End the user's lifecycle, if it was begun: one that was cut off in the middle may have started a process."""
        if not self._entered or self._config.lifecycle is None:
            return
        try:
            await self._config.lifecycle.__aexit__(None, None, None)
        except Exception as fault:  # noqa: BLE001 - the user's code; the worker ends all the same
            log.warning("lifecycle_exit_failed", error=repr(fault)[:200])

    async def _measured(self) -> float:
        """The perf, however often the model server has to be started for it."""
        while True:
            # A log line may be of an earlier life, or said a moment too soon: the server itself has the last word.
            if self._has_model:
                await self._until_well()
            self._said_loaded.clear()
            try:
                perf = await self._perf()
            except BenchmarkFailed as fault:
                self._standing.failed("benchmark", f"the benchmark failed: {fault}")
            else:
                self._standing.recovered("benchmark")
                return perf
            try:
                async with asyncio.timeout(_RETRY_SECONDS):
                    await self._said_loaded.wait()
            except TimeoutError:
                continue

    async def watch_log(self) -> None:
        """Tell what the model's log says, for as long as the worker runs."""
        watch = LogWatch(
            Path(self._config.model_log_file or ""),
            self._config.log_action_config,
            loaded=self._log_says_loaded,
            failed=self._log_says_failed,
            unreadable=self._log_file_is,
        )
        await watch.run()

    def _log_says_failed(self, line: str) -> None:
        """While it loads, the log is all there is; of a worker that serves, one request may have provoked the line."""
        if self._standing.ready and self._has_model:
            self.probe.doubt_log(line)
        else:
            self._standing.failed("log", f"the model's log says: {line}")

    def _log_says_loaded(self) -> None:
        self._said_loaded.set()
        self._standing.recovered("log")

    def _log_file_is(self, fault: str) -> None:
        if fault and self._standing.ready:
            log.warning("log_file_unreadable", error=fault)
        elif fault:
            self._standing.failed("log file", fault)
        else:
            self._standing.recovered("log file")

    async def _until_well(self) -> None:
        while True:
            try:
                await self.probe.until_well()
                return
            except TimeoutError:
                log.warning("probe_slow")

    def _well(self) -> None:
        for source in ("probe", "connection", "log"):
            self._standing.recovered(source)

    def _ill(self, fault: str) -> None:
        self._standing.failed("probe", fault)

    async def _attempt(self) -> str | None:
        return await Benchmark(
            self._pool, self._routes[self._config.benchmark_handler.route.encode()]
        ).attempt()

    async def _perf(self) -> float:
        """The worker's perf: remembered on this disk, or measured now."""
        handler = self._config.benchmark_handler
        mark = benchmark.fingerprint(
            handler, model=(self._config.model_name, *self._model_words), gpus=self._gpus.names
        )
        perf = benchmark.remembered(self._directory, mark)
        if perf is not None:
            log.info("benchmark_remembered", perf=round(perf, 3))
            return perf
        perf = await Benchmark(self._pool, self._routes[handler.route.encode()]).measure()
        benchmark.remember(self._directory, mark, perf)
        return perf
