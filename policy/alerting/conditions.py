"""Which alerts are active, from the figures of engines and Temporal workers.

The conditions are those of the rules for Prometheus.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from policy.wording import count, duration, price
from stoker_wire.alerts import ActiveAlert
from stoker_wire.messages import ForeignInstances

FAILED_SHARE_MAX = 0.05
"""Share of failed requests above which an alert is active. Doubled: a tenth of the requests may fail unnoticed."""
FAILED_WINDOW_SECONDS = 600.0
MARKET_FAILED_SHARE_MAX = 0.2
"""Share of failed marketplace calls above which an alert is active. Single failures are normal and retried."""
TASKS_WINDOW_SECONDS = 300.0
ORPHANS_REPORTED_SECONDS = 900.0
"""How long the destruction of an orphan is an active alert."""
TEMPORAL_SILENT_SECONDS = 60.0
BUDGET_SHARE = 0.95
"""Share of the budget at which it counts as reached: the price of one more worker rarely fits exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSnapshot:
    """What an engine knows of one endpoint."""

    name: str
    health: str
    fault: str = ""
    """Why its workflow makes no progress."""
    queued_requests: int = 0
    queue_seconds: float = 0.0
    """Expected queue time; infinite: requests wait and no worker is routable."""
    target_queue_seconds: float = math.inf
    workers: int = 0
    workers_max: int = 0
    gpu_dollars_per_hour: float = 0.0
    dollars_per_hour_max: float = math.inf
    failed_share: float = 0.0
    """Of the requests that ended in the last minutes."""
    wait_reason: str = ""
    """Why requests wait, in the planner's words."""
    bill_difference: float = 0.0
    """Dollars by which bills exceed the ledger's estimate; 0: not notably."""
    worker_error: str = ""
    """The error of a worker that fails."""


def endpoint_alerts(seen: EndpointSnapshot) -> list[ActiveAlert]:
    """The endpoint's active alerts."""
    why = f": {seen.wait_reason}" if seen.wait_reason else ""
    waiting = count(seen.queued_requests, "waiting request")
    target = _seconds(seen.target_queue_seconds)
    more = "more" if seen.bill_difference > 0 else "less"
    spent, limit = seen.gpu_dollars_per_hour, seen.dollars_per_hour_max
    conditions = (
        ("StokerNoCapacity", seen.health == "waiting", f"no worker can take {waiting}{why}"),
        (
            "StokerQueueOverTarget",
            seen.queue_seconds > seen.target_queue_seconds,
            f"the expected queue time is {_seconds(seen.queue_seconds)}, over the target of {target}",
        ),
        (
            "StokerAtMaxWorkers",
            seen.queued_requests > 0 and seen.workers >= seen.workers_max,
            f"all {seen.workers_max} workers of max_workers exist, with {waiting}",
        ),
        (
            "StokerBudgetReached",
            spent >= BUDGET_SHARE * limit,
            f"it spends {price(spent)} of {price(limit)}",
        ),
        (
            "StokerWorkersFailing",
            seen.health == "degraded",
            f"a worker keeps failing: {seen.worker_error or 'it does not answer'}",
        ),
        ("StokerEndpointStuck", seen.health == "stuck", f"its workflow makes no progress: {seen.fault}"),
        (
            "StokerRequestsFailing",
            seen.failed_share > FAILED_SHARE_MAX,
            f"{seen.failed_share:.0%} of the requests of the last ten minutes failed",
        ),
        (
            "StokerBillDiffers",
            seen.bill_difference != 0,
            f"the marketplace billed ${abs(seen.bill_difference):.2f} {more} than the ledger's estimate",
        ),
    )
    return [ActiveAlert(name=name, subject=seen.name, text=text) for name, holds, text in conditions if holds]


def deployment_alerts(swept: ForeignInstances, now: float) -> list[ActiveAlert]:
    """Active alerts of the deployment as a whole, from what the sweep found."""
    conditions = (
        (
            "StokerUnownedInstances",
            swept.unowned > 0,
            f"{count(swept.unowned, 'instance')} with a stoker label and no deployment; they are billed",
        ),
        (
            "StokerOrphansDestroyed",
            0 <= now - swept.destroyed_at < ORPHANS_REPORTED_SECONDS,
            f"the sweep destroyed what no endpoint looked after; {count(swept.destroyed, 'instance')} so far",
        ),
    )
    return [ActiveAlert(name=name, text=text) for name, holds, text in conditions if holds]


def temporal_alerts(silent_seconds: float, *, place: str) -> list[ActiveAlert]:
    """The alert of an engine that gets no answer from Temporal."""
    if silent_seconds <= TEMPORAL_SILENT_SECONDS:
        return []
    text = f"Temporal has not answered for {duration(silent_seconds)}: requests are routed, nothing is scaled"
    return [ActiveAlert(name="StokerTemporalSilent", subject=place, text=text)]


def worker_alerts(*, market_failed_share: float, failing_workflows: Sequence[str]) -> list[ActiveAlert]:
    """Active alerts that a Temporal worker sees."""
    found = [
        ActiveAlert(name="StokerWorkflowTasksFailing", subject=name, text="its workflow tasks fail")
        for name in failing_workflows
    ]
    if market_failed_share > MARKET_FAILED_SHARE_MAX:
        text = f"{market_failed_share:.0%} of the calls of the marketplace failed in the last ten minutes"
        found.append(ActiveAlert(name="StokerMarketFailing", text=text))
    return found


class Window:
    """How much counters grew within the last minutes."""

    __slots__ = ("_seconds", "_seen")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: deque[tuple[float, dict[str, float]]] = deque()

    def grown(self, counters: Mapping[str, float], now: float) -> dict[str, float]:
        """The growth of each counter since the start of the window, with these values now."""
        self._seen.append((now, dict(counters)))
        while len(self._seen) > 1 and now - self._seen[1][0] >= self._seconds:
            self._seen.popleft()
        before = self._seen[0][1]
        return {name: max(0.0, value - before.get(name, 0.0)) for name, value in counters.items()}


def share(grown: Mapping[str, float], failures: Collection[str]) -> float:
    """The part of these outcomes that are failures; 0 without any."""
    total = sum(grown.values())
    return sum(grown.get(name, 0.0) for name in failures) / total if total > 0 else 0.0


def _seconds(seconds: float) -> str:
    return "unknown" if math.isinf(seconds) else duration(seconds)
