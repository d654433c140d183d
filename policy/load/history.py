"""Load history: how much load arrived, in time buckets of several resolutions, and how much is queued."""

from dataclasses import dataclass, replace

from policy.tuning import DEFAULT_TUNING

Series = tuple[tuple[float, float], ...]
"""(bucket start in Unix seconds, load that arrived in it), oldest first; empty buckets are omitted."""

BUCKET_SECONDS = 5.0
_QUARTER_SECONDS = 900.0
_DAY_SECONDS = 86_400.0


_SPREAD_BUCKETS_MAX = 120
"""The load of one report is spread over at most so many buckets. No report covers more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """The latest report of one engine about its queue."""

    engine_id: str
    sequence: int
    at: float
    load: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """Arrivals and backlog of one endpoint, as reported by the engines.

    `known_until` is the time of the latest report. Missing reports are not evidence of zero load.
    """

    seconds: Series = ()
    """5 s buckets of the last 5 minutes."""
    minutes: Series = ()
    """1 min buckets of the last 2 hours."""
    quarters: Series = ()
    """15 min buckets of the last 2 days: the forecast uses yesterday's load."""
    known_since: float | None = None
    known_until: float | None = None
    backlog_load: float = 0.0
    """Load in the engines' queues now, not yet routed to a worker."""
    backlog_requests: int = 0
    last_request_at: float | None = None
    mean_cost: float = 0.0
    """Load per request, smoothed; 0: the engines have not counted requests."""
    engines: tuple[EngineReport, ...] = ()
    """The latest report of each engine. The backlog is their sum."""

    def is_known(self, now: float, stale_seconds: float) -> bool:
        """Whether the latest report is at most `stale_seconds` old."""
        return self.known_until is not None and now - self.known_until <= stale_seconds

    @property
    def covered_seconds(self) -> float:
        """The length of the reported time."""
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
    last_request_at: float | None = None,
) -> LoadHistory:
    """The history with one engine's report added: `load` arrived in the `window_s` seconds before `at`, as `requests`.

    A repeated or older report of the same engine changes nothing.
    """
    before = next((report for report in history.engines if report.engine_id == engine_id), None)
    if before is not None and sequence <= before.sequence:
        return history
    report = EngineReport(
        engine_id=engine_id, sequence=sequence, at=at, load=queued_load, requests=queued_requests
    )
    known_until = max(at, history.known_until or at)
    start = at - max(window_s, 0.0)

    def grown(series: Series, width: float, kept_seconds: float) -> Series:
        return _add_arrivals(series, start, at, load, width=width, keep_from=known_until - kept_seconds)

    last_requests = [each for each in (history.last_request_at, last_request_at) if each is not None]
    engines = [other for other in history.engines if other.engine_id != engine_id]
    engines = sorted((*engines, report), key=lambda each: each.engine_id)
    live = tuple([each for each in engines if _is_live(each, known_until)]) or tuple(engines)
    return replace(
        history,
        seconds=grown(history.seconds, BUCKET_SECONDS, 300.0),
        minutes=grown(history.minutes, 60.0, 7200.0),
        quarters=grown(history.quarters, _QUARTER_SECONDS, 172_800.0),
        known_since=start if history.known_since is None else min(history.known_since, start),
        known_until=known_until,
        last_request_at=max(last_requests, default=None),
        mean_cost=_mean_cost(history.mean_cost, load, requests),
        engines=live,
        backlog_load=sum([each.load for each in live]),
        backlog_requests=sum([each.requests for each in live]),
    )


def _mean_cost(before: float, load: float, requests: int) -> float:
    if requests <= 0 or load <= 0:
        return before
    share = min(1.0, requests / DEFAULT_TUNING.mean_cost_requests) if before > 0 else 1.0
    return before + (load / requests - before) * share


def _is_live(report: EngineReport, now: float) -> bool:
    """Whether the engine still reports. An engine with a queue reports every few seconds."""
    tuning = DEFAULT_TUNING
    limit = tuning.queueing_engine_gone_seconds if report.requests else tuning.engine_gone_seconds
    return now - report.at <= limit


def rate(history: LoadHistory, seconds: float, *, at_least: float = BUCKET_SECONDS) -> float | None:
    """Mean load/s over the last `seconds` of the reported time, at most 300; None: nothing was reported.

    The window ends at the latest report, not now: the last known level holds during an outage. A shorter history is
    averaged over its own length, but over at least `at_least` seconds.
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


def peak_rate_yesterday(history: LoadHistory, now: float, *, before: float, after: float) -> float:
    """The highest quarter-hour mean around this time yesterday, load/s; 0 if the history is shorter than a day.

    The window is from `before` seconds before this time of yesterday to `after` seconds after it.
    """
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


def _add_arrivals(
    series: Series, start: float, end: float, load: float, *, width: float, keep_from: float
) -> Series:
    """The series with the load spread evenly over start..end, and without buckets before `keep_from`."""
    # A report touches only the last buckets, so only those are copied into a dictionary.
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
        last -= width  # a report at a bucket border belongs to the bucket that ends there
    first = min(max((start // width) * width, last - _SPREAD_BUCKETS_MAX * width), last)
    span = end - max(start, first)
    # The number of steps is computed first: for very large times, adding `width` would not change the bucket.
    steps = (last - first) / width
    for number in range(round(steps) + 1 if steps <= _SPREAD_BUCKETS_MAX else 1):
        bucket = first + number * width
        share = (min(end, bucket + width) - max(start, bucket)) / span if span > 0 else 1.0
        if bucket + width > keep_from and share > 0:
            buckets[bucket] = round(buckets.get(bucket, 0.0) + load * share, 3)
    return series[old:touched] + tuple(sorted(buckets.items()))
