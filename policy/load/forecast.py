"""What load to expect now, and how sure that is."""

from dataclasses import dataclass

from policy.load.history import LoadHistory, rate, yesterday
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Arrivals to expect, load/s. The queue is not in it: `capacity` adds it, for it needs to know the fleet."""

    load: float
    """The capacity that the arrivals need: their mean over the time in which they may be worked off, or what came at
    this time of the hour."""
    rising: float
    """The higher of the level and a short window's: what goes on arriving while machines start."""
    sustained: float
    """For the cold capacity: five minutes, or what will have come by this time of yesterday once a new machine has booted."""
    burst: bool
    known: bool
    """False: the engines are silent; `load` is the last known level, and nothing may be cut because of it."""
    settled: bool
    """Whether the history is long enough to conclude that less is needed."""
    reason: str


def forecast(
    history: LoadHistory, now: float, tuning: Tuning, *, window_seconds: float, habit: float = 0.0
) -> Forecast:
    """The load to expect, from the windows of what is known.

    `window_seconds` is `experience.need_window`, `habit` what came at this minute of the last hours, 0 where that is not
    trusted.
    """
    level = rate(history, window_seconds, at_least=min(window_seconds, tuning.medium_seconds))
    if level is None or history.known_until is None:
        nothing = "no engine has reported yet"
        return Forecast(
            load=0.0,
            rising=0.0,
            sustained=0.0,
            burst=False,
            known=False,
            settled=False,
            reason=nothing,
        )
    medium = rate(history, tuning.medium_seconds) or 0.0
    short = rate(history, tuning.short_seconds) or 0.0
    sustained = rate(history, tuning.sustained_seconds, at_least=tuning.medium_seconds) or 0.0
    boots = tuning.pool_lead_seconds
    sustained = max(sustained, yesterday(history, now, before=boots, after=boots))
    known = history.is_known(now, tuning.metrics_stale_seconds)
    if habit > level:
        reason = f"{habit:.4g} load/s at this minute of each of the last hours, {level:.4g} now"
    else:
        reason = f"{level:.4g} load/s in the last {window_seconds:.0f} s"
        if short > tuning.burst_ratio * level:
            reason = f"burst: {short:.4g} load/s in {tuning.short_seconds:.0f} s, {level:.4g} in {window_seconds:.0f} s"
    if not known:
        reason += f", as last told {now - history.known_until:.0f} s ago"
    return Forecast(
        load=max(level, habit),
        rising=max(short, level),
        sustained=sustained,
        burst=short > tuning.burst_ratio * medium,
        known=known,
        settled=known and history.covered_seconds >= tuning.medium_seconds,
        reason=reason,
    )
