"""The load history as known at an earlier time. A simulated plan must not use later load."""

from dataclasses import replace

from policy.load.history import BUCKET_SECONDS, LoadHistory, Series

_FINE_SECONDS = 300.0
_MINUTE = 60.0
_QUARTER = 900.0


def as_of(history: LoadHistory, at: float) -> LoadHistory:
    """The history as it was at `at`. Older than five minutes, a minute's load counts as spread evenly over it."""
    if history.known_until is None or at >= history.known_until:
        return history
    seconds = _fine(history, at - _FINE_SECONDS, at)
    minutes = _so_far(history.minutes, at, _MINUTE, seconds)
    last = history.last_request_at
    if last is not None and last > at:
        ends = [min(start + BUCKET_SECONDS, at) for start, load in seconds if load > 0]
        ends += [min(start + _MINUTE, at) for start, load in minutes if load > 0]
        last = max(ends, default=None)
    return replace(
        history,
        seconds=seconds,
        minutes=minutes,
        quarters=_so_far(history.quarters, at, _QUARTER, minutes),
        known_until=at,
        last_request_at=last,
    )


def arrived(history: LoadHistory, start: float, end: float) -> float:
    """Load that arrived between two times, as far as it is reported."""
    total = 0.0
    for bucket, load in _fine(history, start - BUCKET_SECONDS, end):
        inside = min(bucket + BUCKET_SECONDS, end) - max(bucket, start)
        held = min(bucket + BUCKET_SECONDS, end) - bucket
        if inside > 0 and held > 0:
            total += load * min(1.0, inside / held)
    return total


def _fine(history: LoadHistory, start: float, end: float) -> Series:
    """Buckets of 5 s that begin in start..end; the last one is cut at `end`.

    Times without such buckets get a twelfth of their minute's load.
    """
    if history.known_until is None:
        return ()
    kept_from = -((_FINE_SECONDS - history.known_until) // BUCKET_SECONDS) * BUCKET_SECONDS
    buckets = [(at, load) for at, load in history.seconds if at >= max(kept_from, start)]
    if start < kept_from:
        share = BUCKET_SECONDS / _MINUTE
        for minute, load in history.minutes:
            if minute + _MINUTE <= start or minute >= kept_from:
                continue
            parts = (minute + number * BUCKET_SECONDS for number in range(round(_MINUTE / BUCKET_SECONDS)))
            buckets += [(at, load * share) for at in parts if start <= at < kept_from]
    return _cut(tuple(sorted(buckets)), end, BUCKET_SECONDS, told_until=history.known_until)


def _so_far(series: Series, at: float, width: float, finer: Series) -> Series:
    """The buckets before `at`. The bucket that contains `at` holds the sum of the finer ones before `at`."""
    begun = at // width * width
    kept = [(start, load) for start, load in series if start + width <= at]
    load = sum(load for start, load in finer if begun <= start < at)
    return (*kept, (begun, load)) if load > 0 and begun < at else tuple(kept)


def _cut(series: Series, at: float, width: float, *, told_until: float | None = None) -> Series:
    """The buckets before `at`. The bucket that contains `at` is reduced in proportion."""
    kept = []
    for start, load in series:
        filled = width if told_until is None else min(width, told_until - start)
        if start + width <= at or (filled > 0 and start + filled <= at):
            kept.append((start, load))
        elif start < at and filled > 0:
            kept.append((start, load * (at - start) / filled))
    return tuple(kept)
