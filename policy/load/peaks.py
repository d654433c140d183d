"""Peak hold: capacity that was needed recently is kept for a hold time.

A peak is (time until which this level was needed, level). Levels fall strictly, so the highest held level is the
first peak that has not expired. Each level of capacity has its own timer, as in the ski-rental rule.
"""

Peaks = tuple[tuple[float, float], ...]

_PEAKS_MAX = 24


def update_peaks(peaks: Peaks, level: float, now: float, hold_seconds: float) -> Peaks:
    """The peaks with the current level added and peaks older than `hold_seconds` removed."""
    kept = [(until, value) for until, value in peaks if value > level]
    if kept and len(kept) == len(peaks):
        # The lowest level was needed until now: its timer starts now.
        kept[-1] = (now, kept[-1][1])
    kept = [(until, value) for until, value in kept if now - until < hold_seconds]
    kept.append((now, level))
    return merge_closest_peaks(kept)


def merge_closest_peaks(kept: list[tuple[float, float]]) -> Peaks:
    """At most `_PEAKS_MAX` peaks: the two with the closest levels are merged until the number fits."""
    while len(kept) > _PEAKS_MAX:
        gaps = [kept[index][1] - kept[index + 1][1] for index in range(len(kept) - 1)]
        nearest = gaps.index(min(gaps))
        kept[nearest : nearest + 2] = [(kept[nearest + 1][0], kept[nearest][1])]
    return tuple(kept)


def held_level(peaks: Peaks, now: float, hold_seconds: float) -> float:
    """The highest level that was needed within the last `hold_seconds`."""
    return next((level for until, level in peaks if now - until < hold_seconds), 0.0)


def next_release(peaks: Peaks, now: float, hold_seconds: float) -> float | None:
    """When the highest held level expires, unless it is needed again."""
    return next((until + hold_seconds for until, _ in peaks[:-1] if now - until < hold_seconds), None)
