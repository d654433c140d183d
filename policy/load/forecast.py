"""Forecast of the arrivals, and whether the history is recent and long enough to rely on it."""

from dataclasses import dataclass

from policy.amounts import amount
from policy.load.history import LoadHistory, peak_rate_yesterday, rate
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Expected arrivals, load/s. The backlog is added by `policy.capacity.demand`, which knows the fleet."""

    load: float = 0.0
    """The mean arrivals over the demand window, or the seasonal load if that is higher."""
    rising: float = 0.0
    """The higher of the mean and the short window: what keeps arriving while machines start."""
    sustained: float = 0.0
    """For the cold capacity: the mean of five minutes, or yesterday's peak around this time if that is higher."""
    burst: bool = False
    known: bool = False
    """False: no recent engine report. `load` is then the last known level, and capacity must not be cut."""
    settled: bool = False
    """Whether the history is long enough to scale down."""
    reason: str


def forecast(
    history: LoadHistory, now: float, tuning: Tuning, *, window_seconds: float, seasonal_load: float = 0.0
) -> Forecast:
    """The expected arrivals.

    `window_seconds` is `policy.keepalive.evaluation.demand_window_seconds`; `seasonal_load` is the load/s at this
    minute of the last hours, 0 if the keep-alive rule does not use it.
    """
    level = rate(history, window_seconds, at_least=min(window_seconds, tuning.medium_window_seconds))
    if level is None or history.known_until is None:
        return Forecast(reason="no engine has reported yet")
    medium = rate(history, tuning.medium_window_seconds) or 0.0
    short = rate(history, tuning.short_window_seconds) or 0.0
    sustained = rate(history, tuning.sustained_window_seconds, at_least=tuning.medium_window_seconds) or 0.0
    lead = tuning.cold_pool_lead_seconds
    sustained = max(sustained, peak_rate_yesterday(history, now, before=lead, after=lead))
    known = history.is_known(now, tuning.metrics_stale_seconds)
    if seasonal_load > level:
        reason = (
            f"{amount(seasonal_load)} load/s at this minute of each of the last hours, {amount(level)} now"
        )
    else:
        reason = f"{amount(level)} load/s in the last {window_seconds:.0f} s"
        if short > tuning.burst_ratio * level:
            reason = (
                f"burst: {amount(short)} load/s in {tuning.short_window_seconds:.0f} s,"
                f" {amount(level)} in {window_seconds:.0f} s"
            )
    if not known:
        reason += f", last engine report {now - history.known_until:.0f} s ago"
    return Forecast(
        load=max(level, seasonal_load),
        rising=max(short, level),
        sustained=sustained,
        burst=short > tuning.burst_ratio * medium,
        known=known,
        settled=known and history.covered_seconds >= tuning.medium_window_seconds,
        reason=reason,
    )
