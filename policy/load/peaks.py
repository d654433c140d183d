"""Jitter does not churn: what was needed a moment ago is kept for a while.

A peak is (until when this level was wanted, level). Peaks fall strictly, so the highest one that is still held is the
first that has not expired: every level of capacity has its own clock, as in the ski-rental rule.
"""

Peaks = tuple[tuple[float, float], ...]

_PEAKS_MAX = 24


def remember(peaks: Peaks, level: float, now: float, hold_seconds: float) -> Peaks:
    """The peaks with today's level in them, and without those that were last wanted over `hold_seconds` ago."""
    kept = [(until, value) for until, value in peaks if value > level]
    if kept and len(kept) == len(peaks):
        # the level that held until this moment is the last one: its clock starts now
        kept[-1] = (now, kept[-1][1])
    kept = [(until, value) for until, value in kept if now - until < hold_seconds]
    kept.append((now, level))
    return bounded(kept)


def bounded(kept: list[tuple[float, float]]) -> Peaks:
    """At most so many peaks: the two that differ least become one."""
    while len(kept) > _PEAKS_MAX:
        gaps = [kept[index][1] - kept[index + 1][1] for index in range(len(kept) - 1)]
        nearest = gaps.index(min(gaps))
        kept[nearest : nearest + 2] = [(kept[nearest + 1][0], kept[nearest][1])]
    return tuple(kept)


def held(peaks: Peaks, now: float, hold_seconds: float) -> float:
    """The highest level that was wanted within so many seconds."""
    return next((level for until, level in peaks if now - until < hold_seconds), 0.0)


def next_release(peaks: Peaks, now: float, hold_seconds: float) -> float | None:
    """When the highest level that is still held will be let go, if nothing asks for it again."""
    return next((until + hold_seconds for until, _ in peaks[:-1] if now - until < hold_seconds), None)
