"""The worker's perf: workload per second of its own model on its own GPU, measured once and kept on disk."""

import asyncio
import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec
import structlog

from stoker_pyworker.config import DEFAULT_WORKLOAD, BenchmarkConfig, HandlerConfig, JsonObject, sane_workload
from stoker_pyworker.http.client import ask
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.proxy import forms
from stoker_pyworker.proxy.routes import PreparedRoute, form_of

log = structlog.get_logger(room="benchmark")

CACHE_FILE = ".has_benchmark.json"
_REQUEST_SECONDS_MAX = 600.0
_DEFAULT_CONCURRENCY = 10


class BenchmarkFailed(Exception):
    """The model server answered no benchmark request well."""


class Measured(msgspec.Struct):
    """What is kept on disk."""

    fingerprint: str
    perf: float
    """Workload per second."""
    at: float
    """Unix time, s."""


def fingerprint(handler: HandlerConfig, *, model: tuple[str, ...], gpus: tuple[str, ...]) -> str:
    """What the figure depends on: the model, the benchmark's own settings and code, the GPUs."""
    benchmark = handler.benchmark_config or BenchmarkConfig()
    hooks = [
        benchmark.generator,
        handler.workload_calculator,
        handler.request_parser,
        handler.remote_function,
    ]
    hooks += [getattr(handler.payload_class, name, None) for name in _OF_A_PAYLOAD]
    code = [_code(hook) for hook in hooks]
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


_OF_A_PAYLOAD = (
    "for_test",
    "from_json_msg",
    "generate_payload_json",
    "generate_payload_multipart",
    "count_workload",
)
"""What of a payload class the benchmark runs."""


def _code(hook: Callable[..., Any] | None) -> str:
    code = getattr(hook, "__code__", None)
    return "" if code is None else _of_code(code)


def _of_code(code: CodeType) -> str:
    constants = [each for each in code.co_consts if isinstance(each, str | int | float)]
    inner = [_of_code(each) for each in code.co_consts if isinstance(each, CodeType)]
    return hashlib.sha256(code.co_code + repr((constants, code.co_names, inner)).encode()).hexdigest()


def remembered(directory: Path, mark: str) -> float | None:
    """The perf measured earlier under the same fingerprint, if any."""
    try:
        kept = msgspec.json.decode((directory / CACHE_FILE).read_bytes(), type=Measured)
    except (OSError, ValueError):
        return None
    return kept.perf if kept.fingerprint == mark and 0 < kept.perf < math.inf else None


def remember(directory: Path, mark: str, perf: float) -> None:
    """Keep the figure; a full or read-only disk costs the next start a benchmark and nothing else."""
    new = directory / (CACHE_FILE + ".new")
    try:
        new.write_bytes(msgspec.json.encode(Measured(mark, perf, time.time())))
        new.replace(directory / CACHE_FILE)
    except OSError as fault:
        log.warning("benchmark_not_kept", error=str(fault))


class _Form(dict[str, Any]):
    """Fields of a multipart form, not a JSON object."""


class Benchmark:
    """Runs one handler's benchmark."""

    def __init__(self, pool: Pool, route: PreparedRoute) -> None:
        self._pool = pool
        self._route = route
        self._config = route.config.benchmark_config or BenchmarkConfig()
        self._dataset: Iterator[JsonObject] = itertools.cycle(self._config.dataset or [])

    async def measure(self) -> float:
        """Sustained workload per second: all runs' workload over all runs' time, so that one lucky run does not promise more.

        Raises:
            BenchmarkFailed: with the last thing that went wrong.
        """
        config = self._config
        if config.do_warmup:
            await self._run(1)
        at_once = (config.concurrency or _DEFAULT_CONCURRENCY) if self._route.parallel else 1
        done = seconds = 0.0
        for _ in range(config.runs):
            started = time.perf_counter()
            done += await self._run(at_once)
            seconds += time.perf_counter() - started
        perf = done / seconds
        if not 0 < perf < math.inf:
            raise BenchmarkFailed(
                "the benchmark's payloads have no workload, or no finite one; check workload_calculator"
            )
        log.info(
            "benchmarked", perf=round(perf, 3), runs=config.runs, at_once=at_once, seconds=round(seconds, 3)
        )
        return perf

    async def attempt(self) -> str | None:
        """One request: what is wrong with its answer, or None; also None if no request could be made."""
        try:
            ok, _, said = await self._one()
        except BenchmarkFailed as fault:
            log.warning("attempt_not_made", error=str(fault))
            return None
        return None if ok else f"a benchmark request was not answered well: {said}"

    async def _run(self, at_once: int) -> float:
        """The workload that was answered well."""
        results = await asyncio.gather(*(self._one() for _ in range(at_once)))
        if not any(ok for ok, _, _ in results):
            raise BenchmarkFailed(f"no benchmark request was answered well: {results[-1][2]}")
        return sum(workload for ok, workload, _ in results if ok)

    async def _one(self) -> tuple[bool, float, str]:
        config = self._route.config
        try:
            payload, workload = self._payload()
        except Exception as fault:  # noqa: BLE001 - the user's generator; its fault is the benchmark's failure
            raise BenchmarkFailed(f"the benchmark's generator failed: {fault!r:.200}") from None
        try:
            if config.remote_function is not None:
                await config.remote_function(**payload)
                return True, workload, ""
            body, kind = self._encoded(payload)
            answer = await ask(
                self._pool,
                "POST",
                config.route,
                body,
                seconds_max=_REQUEST_SECONDS_MAX,
                content_type=kind,
            )
        except (OriginFault, TimeoutError) as fault:
            return False, workload, str(fault) or "no answer in time"
        except Exception as fault:  # noqa: BLE001 - the user's remote function
            return False, workload, repr(fault)[:200]
        said = answer.body[:200].decode("utf-8", "replace")
        return answer.status == 200, workload, f"status {answer.status}: {said}"

    def _encoded(self, payload: Any) -> tuple[bytes, str]:
        """Body and content type."""
        if isinstance(payload, _Form):
            body, kind = forms.encode(payload)
            return body, kind.decode()
        return msgspec.json.encode(payload), "application/json"

    def _workload(self, counted: Any) -> float:
        workload = sane_workload(counted)
        if workload is None:
            raise ValueError(f"count_workload: a number of 0 or more was expected, {counted!r:.80} came")
        return workload

    def _payload(self) -> tuple[JsonObject, float]:
        config = self._route.config
        if config.payload_class is not None:
            typed = config.payload_class.for_test()
            fields = form_of(typed)
            payload = dict(typed.generate_payload_json()) if fields is None else _Form(fields)
            return payload, self._workload(typed.count_workload())
        if self._config.dataset:
            payload = dict(next(self._dataset))
        elif self._config.generator is not None:
            payload = self._config.generator()
        else:
            raise BenchmarkFailed("benchmark_config has neither dataset nor generator")
        return payload, self._route.workload(payload, DEFAULT_WORKLOAD)
