"""Whether a change of arrivals or queue makes a plan due; for the live endpoint, the simulator and what-if analysis."""

from policy.amounts import amount
from policy.load.history import LoadHistory, rate
from policy.tuning import DEFAULT_TUNING


def level(history: LoadHistory) -> float | None:
    """Arrivals, load/s; None: nothing is known."""
    return rate(history, DEFAULT_TUNING.replan_rate_seconds)


def level_moved(now: float, planned: float, hot: float) -> bool:
    """Whether arrivals moved since the last plan. All in load/s; `hot` is the ready capacity."""
    return abs(now - planned) > max(planned * DEFAULT_TUNING.replan_rate_change, 0.01 * hot, 1e-9)


def level_reason(history: LoadHistory, planned: float, hot: float) -> str:
    """Why arrivals call for a plan; empty: they do not."""
    now = level(history)
    if now is None or not level_moved(now, planned, hot):
        return ""
    return f"load moved from {amount(planned)} to {amount(now)}/s"


def queue_reason(queued: float, before: float) -> str:
    """Why the queue calls for a plan, in units of load; empty: it does not."""
    if queued > 0 and (before <= 0 or queued > before * (1 + DEFAULT_TUNING.replan_rate_change)):
        return f"{amount(queued)} load waits"
    return "the queue is empty" if before > 0 and queued <= 0 else ""
