"""Hourly seasonality: load that occurred at this minute of each of the last two hours is expected again."""

import math
from collections.abc import Sequence

from policy.tuning import Tuning

MINUTE_SECONDS = 60.0
SEASON_MINUTES = 128
"""Number of minutes whose peak demand is known, indexed by the minute's number modulo this."""
_PERIOD_MINUTES = 60


def seasonal_level(minute_peaks: Sequence[float], at: float, lead_seconds: float, tuning: Tuning) -> float:
    """Load/s that was needed around this minute in each of the last two hours; 0 if one of them had none.

    The window reaches `lead_seconds` ahead, so that machines start before the load comes: a machine started at the
    first request of a burst is too late. `lead_seconds` is at least `Tuning.seasonal_lead_seconds`.
    """
    if not minute_peaks:
        return 0.0
    least = math.inf
    first = int((at + tuning.seasonal_lead_seconds) // MINUTE_SECONDS) - 1
    last = int((at + lead_seconds) // MINUTE_SECONDS) + 1
    for lag in (_PERIOD_MINUTES, 2 * _PERIOD_MINUTES):
        highest = 0.0
        for minute in range(first - lag, last - lag + 1):
            if minute_peaks[minute % SEASON_MINUTES] > highest:
                highest = minute_peaks[minute % SEASON_MINUTES]
        if highest <= 0:
            return 0.0
        if highest < least:
            least = highest
    return least


def next_rise(minute_peaks: Sequence[float], now: float, lead_seconds: float, tuning: Tuning) -> float | None:
    """When the seasonal level next rises by `Tuning.seasonal_rise_factor`, within an hour; None: it does not."""
    if not minute_peaks:
        return None
    before = seasonal_level(minute_peaks, now, lead_seconds, tuning)
    first = now // MINUTE_SECONDS + 1
    for number in range(_PERIOD_MINUTES):
        at = (first + number) * MINUTE_SECONDS - lead_seconds % MINUTE_SECONDS
        if at <= now:
            continue
        level = seasonal_level(minute_peaks, at, lead_seconds, tuning)
        if level > before * tuning.seasonal_rise_factor:
            return at
        before = level
    return None
