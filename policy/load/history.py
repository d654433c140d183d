"""Load windows: how much work arrived, at several resolutions, bounded in size."""

from dataclasses import dataclass, replace
from typing import TypedDict

Series = tuple[tuple[float, float], ...]
"""(bucket start in Unix seconds, load that arrived in it), oldest first; an empty bucket is left out."""

BUCKET_SECONDS = 5.0
_QUARTER_SECONDS = 900.0
_DAY_SECONDS = 86_400.0
_RESOLUTIONS = (("seconds", 5.0, 300.0), ("minutes", 60.0, 7200.0), ("quarters", 900.0, 172_800.0))
_SPREAD_BUCKETS = 120
"""A load is spread over so many buckets before the last at most; no engine tells of more at once."""
_COST_REQUESTS = 200.0
"""Enough that the mean of costs that differ by their mean is known to 7 %."""
_ENGINE_SECONDS = 180.0
"""An engine that said nothing for so long is gone."""
_QUEUEING_ENGINE_SECONDS = 25.0
"""The same for one whose requests wait: it speaks every ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWord:
    """The last word of one engine about its queue."""

    engine_id: str
    sequence: int
    at: float
    load: float = 0.0
    requests: int = 0
    oldest_wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """Arrivals and backlog of one endpoint, as told by the engines.

    Each series is a tuple of (bucket start in Unix seconds, load that arrived in the bucket), oldest first. "No data"
    is not "no load": `known_until` says up to when the engines have spoken.
    """

    seconds: Series = ()
    """5 s buckets of the last 5 minutes."""
    minutes: Series = ()
    """1 min buckets of the last 2 hours."""
    quarters: Series = ()
    """15 min buckets of the last 2 days: nobody looks further back than yesterday."""
    known_since: float | None = None
    known_until: float | None = None
    backlog_load: float = 0.0
    """Load waiting in the engines' global queues now (not yet given to a worker)."""
    backlog_requests: int = 0
    oldest_wait_s: float = 0.0
    """How long the first in the queue has waited."""
    backlog_at: float = 0.0
    """When the backlog was told."""
    last_request_at: float | None = None
    mean_cost: float = 0.0
    """Load of a request, smoothed over some hundred of them; 0: engines have not counted requests."""
    engines: tuple[EngineWord, ...] = ()
    """The backlog, engine by engine."""

    def is_known(self, now: float, stale_seconds: float) -> bool:
        """Whether the engines spoke lately. If not, nothing may be concluded from silence."""
        return self.known_until is not None and now - self.known_until <= stale_seconds

    @property
    def covered_seconds(self) -> float:
        """How long a time the history speaks of."""
        if self.known_since is None or self.known_until is None:
            return 0.0
        return max(0.0, self.known_until - self.known_since)


def fold(
    history: LoadHistory,
    *,
    engine_id: str,
    sequence: int,
    at: float,
    window_s: float = 0.0,
    load: float = 0.0,
    requests: int = 0,
    queued_load: float = 0.0,
    queued_requests: int = 0,
    oldest_wait_s: float = 0.0,
    last_request_at: float | None = None,
) -> LoadHistory:
    """The history with one engine's batch in it: `load` arrived in the `window_s` seconds before `at`, as `requests`.

    An older or doubled batch of the same engine changes nothing.
    """
    before = next((word for word in history.engines if word.engine_id == engine_id), None)
    if before is not None and sequence <= before.sequence:
        return history
    word = EngineWord(
        engine_id=engine_id,
        sequence=sequence,
        at=at,
        load=queued_load,
        requests=queued_requests,
        oldest_wait_s=oldest_wait_s,
    )
    known_until = max(at, history.known_until or at)
    start = at - max(window_s, 0.0)
    grown = {
        name: _arrived(getattr(history, name), start, at, load, width=width, keep_from=known_until - keep)
        for name, width, keep in _RESOLUTIONS
    }
    told_at = [told for told in (history.last_request_at, last_request_at) if told is not None]
    engines = [old for old in history.engines if old.engine_id != engine_id]
    engines = sorted((*engines, word), key=lambda each: each.engine_id)
    return replace(
        history,
        seconds=grown["seconds"],
        minutes=grown["minutes"],
        quarters=grown["quarters"],
        known_since=start if history.known_since is None else min(history.known_since, start),
        known_until=known_until,
        last_request_at=max(told_at, default=None),
        mean_cost=_mean_cost(history.mean_cost, load, requests),
        **_backlog(tuple(engines), history.backlog_at, known_until),
    )


def _mean_cost(before: float, load: float, requests: int) -> float:
    if requests <= 0 or load <= 0:
        return before
    share = min(1.0, requests / _COST_REQUESTS) if before > 0 else 1.0
    return before + (load / requests - before) * share


class _Backlog(TypedDict):
    engines: tuple[EngineWord, ...]
    backlog_load: float
    backlog_requests: int
    oldest_wait_s: float
    backlog_at: float


def _backlog(engines: tuple[EngineWord, ...], before: float, now: float) -> _Backlog:
    """The fields of the history that those of the engines make which still speak."""
    fresh = tuple([word for word in engines if _speaks(word, now)]) or engines
    return _Backlog(
        engines=fresh,
        backlog_load=sum([word.load for word in fresh]),
        backlog_requests=sum([word.requests for word in fresh]),
        oldest_wait_s=max([word.oldest_wait_s for word in fresh], default=0.0),
        backlog_at=max([word.at for word in fresh], default=before),
    )


def _speaks(word: EngineWord, now: float) -> bool:
    """Whether the engine is still there. One with a queue says so every few seconds: silent, it died with its queue, and
    its clients ask another."""
    return now - word.at <= (_QUEUEING_ENGINE_SECONDS if word.requests else _ENGINE_SECONDS)


def rate(history: LoadHistory, seconds: float, *, at_least: float = BUCKET_SECONDS) -> float | None:
    """Mean load/s over the last `seconds` that are known, at most 300; None if nothing is known.

    The window ends where knowledge ends, not now: the last known level holds through an outage. A history shorter than
    the window is averaged over its own length, but at least over `at_least` seconds.
    """
    known_until = history.known_until
    if known_until is None:
        return None
    window = max(min(seconds, history.covered_seconds), at_least)
    start = known_until - window
    total = 0.0
    full_until = known_until - BUCKET_SECONDS
    for bucket, load in reversed(history.seconds):
        if start <= bucket <= full_until:
            total += load
            continue
        if bucket + BUCKET_SECONDS <= start:
            break
        inside = min(bucket + BUCKET_SECONDS, known_until) - max(bucket, start)
        filled = min(BUCKET_SECONDS, known_until - bucket)
        if inside > 0 and filled > 0:
            total += load * min(1.0, inside / filled)
        elif filled <= 0:
            total += load
    return total / window


def yesterday(history: LoadHistory, now: float, *, before: float, after: float) -> float:
    """The highest mean of a quarter of an hour, load/s, from `before` seconds before this time of yesterday to `after` seconds
    after it; 0 while no yesterday is known."""
    if history.known_since is None or history.known_since > now - _DAY_SECONDS:
        return 0.0
    then = now - _DAY_SECONDS
    highest = 0.0
    for quarter, load in reversed(history.quarters):
        if quarter > then + after:
            continue
        if quarter + _QUARTER_SECONDS <= then - before:
            break
        highest = max(highest, load)
    return highest / _QUARTER_SECONDS


def _arrived(
    series: Series, start: float, end: float, load: float, *, width: float, keep_from: float
) -> Series:
    """The series with the load spread evenly over start..end, and without what is too old."""
    # a week of buckets is kept and the last one or two are touched: only those are taken apart and put together again
    old = 0
    while old < len(series) and series[old][0] + width <= keep_from:
        old += 1
    if load <= 0:
        return series[old:]
    touched = len(series)
    while touched > old and series[touched - 1][0] + width > start - width:
        touched -= 1
    buckets = dict(series[touched:])
    last = (end // width) * width
    if end == last and start < end:
        last -= width  # a batch sent on the very border tells of the bucket that it closes
    first = min(max((start // width) * width, last - _SPREAD_BUCKETS * width), last)
    span = end - max(start, first)
    # counted, not stepped until `last`: far from zero a step changes nothing, and there would be no end
    steps = (last - first) / width
    for number in range(round(steps) + 1 if steps <= _SPREAD_BUCKETS else 1):
        bucket = first + number * width
        share = (min(end, bucket + width) - max(start, bucket)) / span if span > 0 else 1.0
        if bucket + width > keep_from and share > 0:
            buckets[bucket] = round(buckets.get(bucket, 0.0) + load * share, 3)
    return series[old:touched] + tuple(sorted(buckets.items()))
