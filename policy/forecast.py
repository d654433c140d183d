"""What load to expect now, and how sure that is."""

from dataclasses import dataclass

from policy.load import LoadHistory, rate
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Arrivals to expect, load/s. The queue is not in it: `capacity` adds it, for it needs to know the fleet."""

    load: float
    """For the hot capacity: the last minute, or the last 15 s when they burst."""
    sustained: float
    """For the cold capacity: five minutes."""
    burst: bool
    known: bool
    """False: the engines are silent; `load` is the last known level, and nothing may be cut because of it."""
    settled: bool
    """Whether the history is long enough to conclude that less is needed."""
    reason: str


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
    load = max(medium, short / tuning.short_discount)
    if load > medium:
        kind = "burst" if burst else "rising"
        reason = (
            f"{kind}: {short:.4g} load/s in {tuning.short_seconds:.0f} s, {medium:.4g} in the last minute"
        )
    else:
        reason = f"{medium:.4g} load/s in the last minute"
    if not known:
        reason += f", as last told {now - history.known_until:.0f} s ago"
    settled = known and history.covered_seconds >= tuning.medium_seconds
    return Forecast(load=load, sustained=sustained, burst=burst, known=known, settled=settled, reason=reason)
