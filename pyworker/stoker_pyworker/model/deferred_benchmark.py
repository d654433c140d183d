"""Measures the perf of a worker that serves already: from its traffic, and by the benchmark in an idle moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from stoker_pyworker.model.benchmark import BenchmarkFailed

log = structlog.get_logger(component="benchmark")

_POLL_SECONDS = 0.05
_IDLE_SECONDS = 2.0
"""Idle time before the benchmark starts. It doubles after each interruption."""
_IDLE_SECONDS_MAX = 60.0
_FAILED_SECONDS = 60.0
_WINDOW_SECONDS = 20.0
"""Length of an observation of continuous work. Half of it: a few long requests make up the whole rate."""
_CHANGE_SHARE = 0.1
"""Smaller changes of the estimate are not reported."""


class TrafficRate:
    """The workload per second over windows in which the worker was never idle."""

    def __init__(self) -> None:
        self._started_at = 0.0
        self._served = 0.0
        self._limited = True

    def observe(self, now: float, *, busy: bool, limited: bool, served: float) -> tuple[float, bool] | None:
        """The rate of a complete window, and whether the server worked at its limit all the time; else None.

        `served` is the workload finished since the start, `limited` whether more requests than the server takes wait.
        """
        if not busy:
            self._started_at = 0.0
            return None
        if not self._started_at:
            self._started_at, self._served, self._limited = now, served, limited
            return None
        self._limited = self._limited and limited
        seconds = now - self._started_at
        if seconds < _WINDOW_SECONDS:
            return None
        rate, was_limited = (served - self._served) / seconds, self._limited
        self._started_at, self._served, self._limited = now, served, limited
        return rate, was_limited


class DeferredBenchmark:
    """Replaces an estimated perf: traffic raises it or, at the server's limit, sets it; the benchmark settles it."""

    def __init__(
        self,
        measure: Callable[[], Awaitable[float]] | None,
        *,
        perf: float,
        busy: Callable[[], bool],
        limited: Callable[[], bool],
        served: Callable[[], float],
        changed: Callable[..., None],
    ) -> None:
        """`measure` runs the benchmark (None: it has no benchmark). `changed(perf, provisional=…)` receives each better value.

        A rate at the server's limit is a measurement; one below it is only a lower bound.
        """
        self._measure = measure
        self._perf = perf
        self._busy = busy
        self._limited = limited
        self._served = served
        self._changed = changed
        self._traffic = TrafficRate()

    @property
    def measures(self) -> bool:
        """Whether a benchmark will run."""
        return self._measure is not None

    async def run(self) -> None:
        """Returns when the benchmark has run."""
        pause, idle_since, not_before = _IDLE_SECONDS, time.monotonic(), 0.0
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            now, busy = time.monotonic(), self._busy()
            self._learn(now, busy=busy)
            if busy:
                idle_since = now
            if self._measure is None or now - idle_since < pause or now < not_before:
                continue
            try:
                perf = await self._measure_unless_busy(self._measure)
            except BenchmarkFailed as fault:
                # Requests of clients are served meanwhile, so this is not an error of the worker.
                log.warning("benchmark_failed", error=str(fault)[:300])
                not_before = time.monotonic() + _FAILED_SECONDS
                continue
            if perf is not None:
                self._perf = perf
                self._changed(perf, provisional=False)
                return
            pause = min(pause * 2, _IDLE_SECONDS_MAX)
            idle_since = time.monotonic()

    def _learn(self, now: float, *, busy: bool) -> None:
        seen = self._traffic.observe(now, busy=busy, limited=self._limited(), served=self._served())
        if seen is None:
            return
        rate, at_limit = seen
        better = rate if at_limit and rate > 0 else max(rate, self._perf)
        if abs(better - self._perf) > _CHANGE_SHARE * self._perf:
            log.info("perf_from_traffic", perf=round(better, 3), before=round(self._perf, 3))
            self._perf = better
            self._changed(better, provisional=not at_limit and self._measure is not None)

    async def _measure_unless_busy(self, measure: Callable[[], Awaitable[float]]) -> float | None:
        """The result, or None if a request arrived meanwhile: it must not wait for the benchmark."""
        running = asyncio.ensure_future(measure())
        try:
            while not running.done():
                if self._busy():
                    log.info("benchmark_interrupted")
                    return None
                await asyncio.wait({running}, timeout=_POLL_SECONDS)
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
