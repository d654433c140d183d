"""What load to expect now, and how sure that is."""

from dataclasses import dataclass

from policy.chance import dispersion, proven_level
from policy.load import LoadHistory, rate
from policy.recurrence import recurring_level
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Arrivals to expect, load/s. The queue is not in it: `capacity` adds it, for it needs to know the fleet."""

    load: float
    """For the hot capacity: the last minute, or a shorter window that proves more, or what comes at this time of the
    hour."""
    sustained: float
    """For the cold capacity: five minutes."""
    burst: bool
    known: bool
    """False: the engines are silent; `load` is the last known level, and nothing may be cut because of it."""
    settled: bool
    """Whether the history is long enough to conclude that less is needed."""
    reason: str
    dispersion: float = 1.0
    """How many times more than chance the arrivals scatter."""


def forecast(history: LoadHistory, now: float, tuning: Tuning) -> Forecast:
    """The load to expect, from the windows of what is known."""
    medium = rate(history, tuning.medium_seconds)
    if medium is None or history.known_until is None:
        nothing = "no engine has reported yet"
        return Forecast(load=0.0, sustained=0.0, burst=False, known=False, settled=False, reason=nothing)
    short = rate(history, tuning.short_seconds) or 0.0
    sustained = rate(history, tuning.sustained_seconds, at_least=tuning.medium_seconds) or 0.0
    known = history.is_known(now, tuning.metrics_stale_seconds)
    burst = short > tuning.burst_ratio * medium
    counted = history.mean_cost > 0
    proven, window = proven_level(history, tuning) if counted else (short / tuning.short_discount, 0.0)
    recurring = recurring_level(history, now, tuning)
    load = max(medium, proven, recurring)
    if recurring > max(medium, proven):
        reason = f"{recurring:.4g} load/s at this minute of the last {tuning.recurrence_hours} hours, {medium:.4g} now"
    elif load > medium:
        kind = "burst" if burst else "rising"
        shown, seconds = (proven, window) if counted else (short, tuning.short_seconds)
        sure = "at least " if counted else ""
        reason = f"{kind}: {sure}{shown:.4g} load/s in {seconds:.0f} s, {medium:.4g} in the last minute"
    else:
        reason = f"{medium:.4g} load/s in the last minute"
    if not known:
        reason += f", as last told {now - history.known_until:.0f} s ago"
    settled = known and history.covered_seconds >= tuning.medium_seconds
    return Forecast(
        load=load,
        sustained=sustained,
        burst=burst,
        known=known,
        settled=settled,
        reason=reason,
        dispersion=dispersion(history, tuning),
    )
