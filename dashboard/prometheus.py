"""Samples of ranges longer than a day, read from a Prometheus server that scrapes the engines."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from dashboard.samples import Sample
from stoker_wire.states import WorkerState

RANGES = {"7d": 604_800.0, "30d": 2_592_000.0}
POINTS = 240
"""Points of a range. Doubled: sharper charts, and twice the work for Prometheus."""
KEPT_SECONDS = 60.0
"""How long an answer is shown. Doubled: half the queries, and charts that move half as often."""
FAULT_KEPT_SECONDS = 10.0
KEPT_MAX = 50
"""Ranges of endpoints in memory, 100 KB each at most."""
TIMEOUT_SECONDS = 30.0
ANSWER_BYTES_MAX = 8 * 2**20
"""A query has a series for each stage or state, so its answer is far shorter. Doubled: twice the memory of a wrong one."""
_FAULT_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The samples of a range, oldest first."""

    samples: list[Sample]
    start: float
    """Unix seconds."""
    end: float
    notice: str = ""
    """Why there are no samples."""


def expressions(match: str, window: str) -> dict[str, str]:
    """The queries by name.

    Args:
        match: label matchers that select one endpoint.
        window: the time that one point covers, as `2520s`.

    Engines report the same workers, so the highest value counts; a queue and requests are those of one engine.
    """

    def quantile(share: float) -> str:
        rate = "rate(stoker_request_wait_seconds"
        native = f"histogram_quantile({share}, sum ({rate}{{{match}}}[{window}])))"
        return f"{native} or histogram_quantile({share}, sum by (le) ({rate}_bucket{{{match}}}[{window}])))"

    # A state is exported while a worker is in it, so its mean is over all scrapes and not over those that have it.
    workers = f"sum_over_time(stoker_workers{{{match}}}[{window}])"
    scrapes = f"count_over_time(stoker_workers_max{{{match}}}[{window}])"
    return {
        "load": f"sum(rate(stoker_arrived_load_total{{{match}}}[{window}]))",
        "capacity": f"max by (stage) (avg_over_time(stoker_capacity_load_per_second{{{match}}}[{window}]))",
        "workers": f"max by (state) ({workers} / ignoring (state) group_left {scrapes})",
        "dollars": f"max by (stage) (avg_over_time(stoker_gpu_dollars_per_hour{{{match}}}[{window}]))",
        "queue": f"sum(max_over_time(stoker_queue_requests{{{match}}}[{window}]))",
        "queue_oldest": f"max(max_over_time(stoker_queue_oldest_seconds{{{match}}}[{window}]))",
        "wait_p50": quantile(0.5),
        "wait_p99": quantile(0.99),
    }


class Unreadable(Exception):
    """Prometheus did not answer, or with an error; the message says which."""


class Prometheus:
    """Reads ranges, and keeps each for a minute. Pages of the same range share one reading."""

    def __init__(self, url: str, labels: Mapping[str, str], authorization: str = "") -> None:
        """`authorization`: the value of the header of this name; empty: none."""
        self._url = url
        self._headers = {"Authorization": authorization} if authorization else {}
        self._labels = dict(labels)
        self._http: aiohttp.ClientSession | None = None
        self._kept: dict[tuple[str, str], tuple[float, asyncio.Task[Window]]] = {}
        """By endpoint name and range: until when it is shown, and its reading."""
        self._last: dict[tuple[str, str], Window] = {}
        """The last readings that succeeded or failed; shown while the next one runs."""

    def __repr__(self) -> str:
        return f"<Prometheus at {self._url}>"

    async def close(self) -> None:
        """End all readings."""
        tasks = [task for _, task in self._kept.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def window(self, endpoint: str, chosen: str, now: float, *, patience_seconds: float) -> Window:
        """The range of an endpoint; after `patience_seconds` the one before, or an empty one with a notice."""
        key, clock = (endpoint, chosen), time.monotonic()
        until, task = self._kept.get(key, (0.0, None))
        if task is None or (task.done() and clock >= until):
            task = asyncio.create_task(self._read(endpoint, RANGES[chosen], now))
            self._kept[key] = (clock + KEPT_SECONDS, task)
            task.add_done_callback(lambda done: self._done(key, done))
            while len(self._kept) > KEPT_MAX:
                oldest = next(iter(self._kept))
                self._kept.pop(oldest)[1].cancel()
                self._last.pop(oldest, None)
        await asyncio.wait([task], timeout=patience_seconds)
        if found := self._last.get(key):
            return found
        return Window(
            samples=[],
            start=now - RANGES[chosen],
            end=now,
            notice="Reading from Prometheus \N{HORIZONTAL ELLIPSIS}",
        )

    def _done(self, key: tuple[str, str], task: asyncio.Task[Window]) -> None:
        if task.cancelled() or key not in self._kept:
            return
        self._last[key] = task.result()
        if task.result().notice:
            self._kept[key] = (time.monotonic() + FAULT_KEPT_SECONDS, task)

    async def _read(self, endpoint: str, seconds: float, now: float) -> Window:
        step = seconds / POINTS
        start = now - seconds
        labels = {"endpoint": endpoint} | self._labels
        match = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
        queries = expressions(match, f"{step:.0f}s")
        try:
            answers = await asyncio.gather(
                *(self._query(query, start, now, step) for query in queries.values())
            )
            found = samples_of(dict(zip(queries, answers, strict=True)))
        except TimeoutError:
            return self._without(start, now, f"it did not answer within {TIMEOUT_SECONDS:.0f} s")
        except (Unreadable, aiohttp.ClientError) as fault:
            return self._without(start, now, str(fault)[:_FAULT_CHARS] or type(fault).__name__)
        samples = [sample for sample in found if start - step <= sample.at <= now + step]
        if not samples:
            return Window(
                samples=[],
                start=start,
                end=now,
                notice=f"Prometheus has no samples of {endpoint}. Let it scrape the engine's /metrics with an account key.",
            )
        return Window(samples=samples, start=start, end=now)

    def _without(self, start: float, end: float, reason: str) -> Window:
        notice = f"Prometheus at {self._url} cannot be read: {reason}. Ranges up to 24h do not need it."
        return Window(samples=[], start=start, end=end, notice=notice)

    async def _query(self, query: str, start: float, end: float, step: float) -> list[Any]:
        """The series of one query.

        Raises:
            Unreadable: the answer is not one of Prometheus, or names an error.
            ClientError: no connection.
        """
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        given = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        url, body = f"{self._url}/api/v1/query_range", bytearray()
        async with self._http.get(url, params=given, headers=self._headers, allow_redirects=False) as answer:
            async for part in answer.content.iter_any():
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise Unreadable(f"its answer has more than {ANSWER_BYTES_MAX >> 20} MiB")
        try:
            found = json.loads(body)
            if found["status"] != "success":
                raise Unreadable(f"{found.get('errorType')}: {found.get('error')}")
            series = found["data"]["result"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unreadable(f"HTTP {answer.status} without an answer of Prometheus") from None
        if not isinstance(series, list):
            raise Unreadable("its answer is not a list of series")
        return series


def samples_of(answers: Mapping[str, list[Any]]) -> list[Sample]:
    """One sample for each point of time that a series has.

    Raises:
        Unreadable: a series is not one of Prometheus.
    """
    found: dict[float, dict[str, float]] = {}

    def add(at: float, name: str, value: float) -> None:
        values = found.setdefault(at, {})
        if math.isfinite(value):  # the quantile of no request is not a number
            values[name] = values.get(name, 0.0) + value

    try:
        for name, series in answers.items():
            for one in series:
                if (field := _field(name, one["metric"])) is not None:
                    for at, value in one["values"]:
                        add(float(at), field, float(value))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise Unreadable(f"a series has an unexpected form: {fault!r}") from None
    return [Sample(at=at, **values) for at, values in sorted(found.items())]


def _field(query: str, labels: Mapping[str, str]) -> str | None:
    """The field of a sample for a series; None: it is not drawn."""
    if query == "workers":
        state = labels["state"]
        return (WorkerState(state).stage or None) if state in set(WorkerState) else None
    if query in {"capacity", "dollars"}:
        name = f"{query}_{labels['stage']}"
        return name if name in Sample.__dataclass_fields__ else None
    return query
