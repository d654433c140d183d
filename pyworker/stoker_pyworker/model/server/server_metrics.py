"""Reads the model server's Prometheus metrics: running and waiting requests, KV cache, generated tokens."""

import asyncio
import math
import re
import time
from collections.abc import Callable

import msgspec

from stoker_pyworker.server_config import MetricNames
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

_BUSY_SECONDS = 1.0
_IDLE_SECONDS = 15.0
_ANSWER_SECONDS_MAX = 5.0
_FULL_SHARE = 0.9
"""With this share of the KV cache in use and requests waiting, the server takes no more."""
_FREE_SHARE = 0.8
"""Below it the server takes requests again."""
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{[^}]*\})?\s+([^\s]+)")


class ModelReading(msgspec.Struct, frozen=True):
    """One reading (`stoker_wire.worker_status.ModelStatus`)."""

    running: int = 0
    waiting: int = 0
    cache_used: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    output_tokens_per_second: float = 0.0
    full: bool = False
    """The KV cache is full and requests wait, so the worker should get no more."""


def samples(text: str, names: frozenset[str]) -> dict[str, list[float]]:
    """The values of the named samples, in the text format of Prometheus."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("#") or (sample := _SAMPLE.match(line)) is None or sample[1] not in names:
            continue
        try:
            value = float(sample[2])
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(sample[1], []).append(value)
    return found


class ServerMetrics:
    """Polls the metrics, often while requests run."""

    def __init__(self, pool: UpstreamPool, names: MetricNames, *, changed: Callable[[], None]) -> None:
        """`changed` is called when the server becomes full, or has room again."""
        self._pool = pool
        self._names = names
        self._changed = changed
        self._wanted = frozenset((*names.running, *names.waiting, *names.cache_used, *names.output_tokens))
        self._tokens: tuple[float, float] | None = None
        self.reading: ModelReading | None = None
        """None: not read yet, or the server has no such page."""

    async def watch(self, busy: Callable[[], bool]) -> None:
        """Read again and again, until cancelled."""
        while True:
            await self.read()
            started = time.monotonic()
            while time.monotonic() - started < (_BUSY_SECONDS if busy() else _IDLE_SECONDS):  # noqa: ASYNC110 - polls
                await asyncio.sleep(_BUSY_SECONDS / 2)

    async def read(self) -> None:
        """Read once. A server that does not answer now keeps its last reading."""
        try:
            answer = await fetch(self._pool, "GET", self._names.path, seconds_max=_ANSWER_SECONDS_MAX)
        except (UpstreamError, TimeoutError):
            return
        if answer.status != 200:
            self.reading = None
            return
        was_full = self.reading is not None and self.reading.full
        self.reading = self.parse(answer.body.decode("utf-8", "replace"), time.monotonic())
        if self.reading.full != was_full:
            self._changed()

    def parse(self, text: str, now: float) -> ModelReading:
        """The reading of a page."""
        found = samples(text, self._wanted)

        def first(names: tuple[str, ...]) -> list[float]:
            return next((found[name] for name in names if name in found), [])

        cache_used = min(max(first(self._names.cache_used), default=0.0), 1.0)
        waiting = int(sum(first(self._names.waiting)))
        was_full = self.reading is not None and self.reading.full
        full = waiting > 0 and cache_used >= (_FREE_SHARE if was_full else _FULL_SHARE)
        return ModelReading(
            running=int(sum(first(self._names.running))),
            waiting=waiting,
            cache_used=cache_used,
            output_tokens_per_second=self._rate(sum(first(self._names.output_tokens)), now),
            full=full,
        )

    def _rate(self, tokens: float, now: float) -> float:
        before, self._tokens = self._tokens, (tokens, now)
        if before is None or tokens < before[0] or now <= before[1]:
            return 0.0
        return (tokens - before[0]) / (now - before[1])
