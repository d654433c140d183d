"""What came at this minute of every hour: jobs on a timer, reports on the hour.

A burst out of nothing cannot be met by starting machines when it is seen: a start takes longer than anybody waits. One
that came in each of the last hours can be met by starting them a start's time before its minute.
"""

from policy.load import LoadHistory
from policy.tuning import Tuning

HOUR_SECONDS = 3600.0
MINUTE_SECONDS = 60.0
_RISE = 1.25
"""Less of a rise than by a quarter is what the spare is for, and worth no look of its own."""


def recurring_level(history: LoadHistory, now: float, tuning: Tuning) -> float:
    """Load/s that came at this minute, or within `recurrence_lead_seconds` after it, in every one of the last hours.

    The least of them: what came once is no habit. 0 while not so many hours are known.
    """
    if not _knows(history, now, tuning):
        return 0.0
    minutes = dict(history.minutes)
    here = now // MINUTE_SECONDS
    soon = (now + tuning.recurrence_lead_seconds) // MINUTE_SECONDS
    return max(_least(minutes, here, tuning), _least(minutes, soon, tuning))


def next_rise(history: LoadHistory, now: float, tuning: Tuning) -> float | None:
    """When to look again so as to be ready for the next rise of the recurring level; None within the hour."""
    if not history.minutes or not _knows(history, now, tuning):
        return None
    minutes = dict(history.minutes)
    first = (now + tuning.recurrence_lead_seconds) // MINUTE_SECONDS + 1
    before = _least(minutes, first - 1, tuning)
    for number in range(int(HOUR_SECONDS // MINUTE_SECONDS)):
        level = _least(minutes, first + number, tuning)
        if level > before * _RISE:
            return float((first + number) * MINUTE_SECONDS - tuning.recurrence_lead_seconds)
        before = level
    return None


def _knows(history: LoadHistory, now: float, tuning: Tuning) -> bool:
    since = history.known_since
    return (
        tuning.recurrence_hours > 0
        and since is not None
        and since <= now - tuning.recurrence_hours * HOUR_SECONDS
    )


def _least(minutes: dict[float, float], minute: float, tuning: Tuning) -> float:
    at = minute * MINUTE_SECONDS
    came = (minutes.get(at - hour * HOUR_SECONDS, 0.0) for hour in range(1, tuning.recurrence_hours + 1))
    return min(came) / MINUTE_SECONDS
