"""Habit: what came at this minute of each of the last hours is expected again, and met before it comes."""

import math
from collections.abc import Sequence

from policy.tuning import Tuning

MINUTE_SECONDS = 60.0
HABIT_MINUTES = 128
"""Minutes of which the highest need is known, by the minute's number modulo this."""
_RISE = 1.25
_RISE_MINUTES = 60


def seasonal_level(minutes: Sequence[float], at: float, lead_seconds: float, tuning: Tuning) -> float:
    """Load/s that was needed at this minute, or the next to it, in each of the last two hours; 0: in one of them nothing.

    Looks as far ahead as it takes to have a worker, and at all that comes until then, for that is what it is good for: a burst out of
    nothing cannot be met by starting machines when it is seen, one that came in each of the last hours can be met by starting them
    before its minute. `lead_seconds` is `Tuning.habit_lead_seconds` or more.
    """
    if not minutes:
        return 0.0
    least = math.inf
    first = int((at + tuning.habit_lead_seconds) // MINUTE_SECONDS) - 1
    last = int((at + lead_seconds) // MINUTE_SECONDS) + 1
    for hour in (60, 120):
        highest = 0.0
        for minute in range(first - hour, last - hour + 1):
            if minutes[minute % HABIT_MINUTES] > highest:
                highest = minutes[minute % HABIT_MINUTES]
        if highest <= 0:
            return 0.0
        if highest < least:
            least = highest
    return least


def next_rise(minutes: Sequence[float], now: float, lead_seconds: float, tuning: Tuning) -> float | None:
    """When the habit next asks for a quarter more than now, within the hour; None: it does not."""
    if not minutes:
        return None
    before = seasonal_level(minutes, now, lead_seconds, tuning)
    first = now // MINUTE_SECONDS + 1
    for number in range(_RISE_MINUTES):
        at = (first + number) * MINUTE_SECONDS - lead_seconds % MINUTE_SECONDS
        if at <= now:
            continue
        level = seasonal_level(minutes, at, lead_seconds, tuning)
        if level > before * _RISE:
            return at
        before = level
    return None
