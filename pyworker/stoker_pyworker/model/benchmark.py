"""Measures the worker's perf (workload per second of its model on its GPU) once, and caches it on disk."""

import asyncio
import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Self

import msgspec
import structlog

from stoker_pyworker.config import (
    DEFAULT_WORKLOAD,
    BenchmarkConfig,
    HandlerConfig,
    JsonObject,
    parse_workload,
)
from stoker_pyworker.payloads import Body, Form
from stoker_pyworker.proxy.routes import PreparedRoute, encoded, multipart_fields
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

log = structlog.get_logger(component="benchmark")

CACHE_FILE = ".has_benchmark.json"
_RUN_ATTEMPTS_MAX = 3
_SUSPENDED_SECONDS = 10.0
_REQUEST_SECONDS_MAX = 600.0


class BenchmarkFailed(Exception):
    """The model server answered no benchmark request with 200."""


class CachedPerf(msgspec.Struct):
    """The content of the cache file."""

    fingerprint: str
    perf: float
    """Workload per second."""
    at: float
    """Unix time, s."""


def fingerprint(handler: HandlerConfig, *, model: tuple[str, ...], gpus: tuple[str, ...]) -> str:
    """A hash of everything that perf depends on: the model, the benchmark's settings and code, the GPUs."""
    benchmark = handler.benchmark_config or BenchmarkConfig()
    hooks = [
        benchmark.generator,
        handler.workload_calculator,
        handler.request_parser,
        handler.remote_function,
    ]
    hooks += [getattr(handler.payload_class, name, None) for name in _PAYLOAD_METHODS]
    code = [_hook_hash(hook) for hook in hooks]
    parts: list[Any] = [
        handler.route,
        handler.allow_parallel_requests,
        benchmark.runs,
        benchmark.concurrency,
        benchmark.do_warmup,
        benchmark.dataset,
        code,
        model,
        gpus or ("cpu", os.cpu_count()),
    ]
    return hashlib.sha256(msgspec.json.encode(parts, enc_hook=repr)).hexdigest()[:32]


_PAYLOAD_METHODS = (
    "for_test",
    "from_json_msg",
    "generate_payload_json",
    "generate_payload_multipart",
    "count_workload",
)
"""The methods of a payload class that the benchmark calls."""


def _hook_hash(hook: Callable[..., Any] | None) -> str:
    code = getattr(hook, "__code__", None)
    return "" if code is None else _code_hash(code)


def _code_hash(code: CodeType) -> str:
    constants = [each for each in code.co_consts if isinstance(each, str | int | float)]
    inner = [_code_hash(each) for each in code.co_consts if isinstance(each, CodeType)]
    return hashlib.sha256(code.co_code + repr((constants, code.co_names, inner)).encode()).hexdigest()


def load_cached(directory: Path, fingerprint: str) -> float | None:
    """The cached perf of the same fingerprint, or None."""
    try:
        cached = msgspec.json.decode((directory / CACHE_FILE).read_bytes(), type=CachedPerf)
    except (OSError, ValueError):
        return None
    return cached.perf if cached.fingerprint == fingerprint and 0 < cached.perf < math.inf else None


def save_cached(directory: Path, key: str, perf: float) -> None:
    """Cache the perf. If the disk is full or read-only, the next start runs the benchmark again."""
    new = directory / (CACHE_FILE + ".new")
    try:
        new.write_bytes(msgspec.json.encode(CachedPerf(key, perf, time.time())))
        new.replace(directory / CACHE_FILE)
    except OSError as fault:
        log.warning("benchmark_not_cached", error=str(fault))


class SuspensionWatch:
    """Notices that this process was suspended: a timer of a second fires much later."""

    def __init__(self) -> None:
        self.was_suspended = False
        self._ticked_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._look()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._look()
        self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    def _look(self) -> None:
        now = time.monotonic()
        self.was_suspended = self.was_suspended or now - self._ticked_at > _SUSPENDED_SECONDS
        self._ticked_at = now


@dataclass(frozen=True, slots=True)
class _RequestResult:
    """The result of one benchmark request."""

    succeeded: bool
    workload: float
    detail: str = ""
    """The response or error, for an error message."""


class Benchmark:
    """Runs one handler's benchmark."""

    def __init__(self, pool: UpstreamPool, route: PreparedRoute) -> None:
        self._pool = pool
        self._route = route
        self._config = route.config.benchmark_config or BenchmarkConfig()
        self._dataset: Iterator[JsonObject | Body] = itertools.cycle(self._config.dataset or [])

    async def measure(self) -> float:
        """The mean workload per second over all runs. A single fast run does not raise it much.

        Raises:
            BenchmarkFailed: with the last error.
        """
        config = self._config
        if config.do_warmup:
            await self._run(1)
        concurrency = self._route.config.concurrency
        done = seconds = 0.0
        for _ in range(config.runs):
            run_done, run_seconds = await self._timed_run(concurrency)
            done += run_done
            seconds += run_seconds
        perf = done / seconds
        if not 0 < perf < math.inf:
            raise BenchmarkFailed(
                "expected benchmark payloads with a positive, finite workload; check workload_calculator"
            )
        log.info(
            "benchmarked",
            perf=round(perf, 3),
            runs=config.runs,
            concurrency=concurrency,
            seconds=round(seconds, 3),
        )
        return perf

    async def _timed_run(self, concurrency: int) -> tuple[float, float]:
        """Workload and seconds of a run. A run during which the machine was suspended says nothing and is repeated."""
        for attempt in range(_RUN_ATTEMPTS_MAX):
            started = time.perf_counter()
            watch = SuspensionWatch()
            try:
                async with watch:
                    done = await self._run(concurrency)
            except BenchmarkFailed:
                if not watch.was_suspended or attempt == _RUN_ATTEMPTS_MAX - 1:
                    raise
            else:
                if not watch.was_suspended or attempt == _RUN_ATTEMPTS_MAX - 1:
                    return done, time.perf_counter() - started
            log.warning("benchmark_repeated", reason="the machine was suspended during the run")
        raise AssertionError("the last attempt returns or raises")

    async def check_once(self) -> str | None:
        """Send one request. The error of its response, or None; also None if no payload could be generated."""
        try:
            result = await self._send_one()
        except BenchmarkFailed as fault:
            log.warning("benchmark_check_skipped", error=str(fault))
            return None
        return None if result.succeeded else f"a benchmark request failed: {result.detail}"

    async def _run(self, concurrency: int) -> float:
        """The workload of the successful requests of one run."""
        results = await asyncio.gather(*(self._send_one() for _ in range(concurrency)))
        if not any(result.succeeded for result in results):
            raise BenchmarkFailed(f"every benchmark request failed: {results[-1].detail}")
        return sum(result.workload for result in results if result.succeeded)

    async def _send_one(self) -> _RequestResult:
        config = self._route.config
        workload = 0.0
        try:
            payload, counted = self._payload()
            body, content_type = self._encoded(payload)
            if counted is None:
                counted = self._route.workload(payload, DEFAULT_WORKLOAD, body_bytes=len(body))
            workload = counted
        except Exception as fault:  # noqa: BLE001 - the user's generator
            raise BenchmarkFailed(f"the benchmark's generator failed: {fault!r:.200}") from None
        try:
            if config.remote_function is not None:
                await config.remote_function(**payload)
                return _RequestResult(True, workload)
            response = await fetch(
                self._pool,
                "POST",
                config.route,
                body,
                seconds_max=_REQUEST_SECONDS_MAX,
                content_type=content_type,
            )
        except (UpstreamError, TimeoutError) as fault:
            return _RequestResult(False, workload, str(fault) or "no answer in time")
        except Exception as fault:  # noqa: BLE001 - the user's remote function
            return _RequestResult(False, workload, repr(fault)[:200])
        text = response.body[:200].decode("utf-8", "replace")
        return _RequestResult(response.status == 200, workload, f"status {response.status}: {text}")

    def _encoded(self, payload: Any) -> tuple[bytes, str]:
        """Body and content type."""
        if self._route.config.remote_function is not None:
            return b"", "application/json"
        body, kind = encoded(payload)
        return body, kind.decode()

    def _payload(self) -> tuple[Any, float | None]:
        """The payload, and its workload if its class counts it."""
        config = self._route.config
        if config.payload_class is not None:
            typed = config.payload_class.for_test()
            fields = multipart_fields(typed)
            given = typed.generate_payload_json() if fields is None else Form(fields)
            payload = given if isinstance(given, Form | Body) else dict(given)
            counted = parse_workload(typed.count_workload())
            if counted is None:
                raise ValueError(
                    f"count_workload: expected a number of 0 or more, received {typed.count_workload()!r:.80}"
                )
            return payload, counted
        if self._config.dataset:
            given = next(self._dataset)
            return (given if isinstance(given, Form | Body) else dict(given)), None
        if self._config.generator is None:
            raise BenchmarkFailed("benchmark_config has neither dataset nor generator")
        return self._config.generator(), None
