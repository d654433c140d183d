"""The alert rules of notifications. `deploy/monitoring/alerts.yaml` has the same for Prometheus."""

from dataclasses import dataclass
from typing import Literal

from stoker_wire.alerts import Role

RUNBOOK = "docs/how-to/alerts.md"
ENGINE_DOWN = "StokerEngineDown"
WORKER_DOWN = "StokerWorkerDown"
TEST = "StokerTest"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """When an active alert fires, and when it is resolved."""

    severity: Literal["page", "warn", "info"]
    seen_by: Role | None = "engine"
    """The processes that see its condition. Without one, nothing is known. None: the notifier sees it itself."""
    hold_seconds: float
    """How long the condition has to hold without a break."""
    clear_seconds: float = 120.0
    """How long the condition has to be absent without a break. Doubled: fewer notices of a condition that comes and
    goes, and a later resolution."""


RULES: dict[str, AlertRule] = {
    ENGINE_DOWN: AlertRule(severity="page", seen_by=None, hold_seconds=60, clear_seconds=0),
    WORKER_DOWN: AlertRule(severity="page", seen_by=None, hold_seconds=60, clear_seconds=0),
    "StokerTemporalSilent": AlertRule(severity="page", hold_seconds=60),
    "StokerWorkflowTasksFailing": AlertRule(severity="page", seen_by="worker", hold_seconds=300),
    "StokerMarketFailing": AlertRule(severity="warn", seen_by="worker", hold_seconds=600),
    "StokerNoCapacity": AlertRule(severity="page", hold_seconds=300),
    "StokerQueueOverTarget": AlertRule(severity="warn", hold_seconds=600),
    "StokerAtMaxWorkers": AlertRule(severity="warn", hold_seconds=600),
    "StokerBudgetReached": AlertRule(severity="warn", hold_seconds=600),
    "StokerWorkersFailing": AlertRule(severity="warn", hold_seconds=600),
    "StokerEndpointStuck": AlertRule(severity="page", hold_seconds=300),
    "StokerRequestsFailing": AlertRule(severity="warn", hold_seconds=300),
    "StokerBillDiffers": AlertRule(severity="warn", hold_seconds=3600),
    "StokerOrphansDestroyed": AlertRule(severity="warn", hold_seconds=0),
    "StokerUnownedInstances": AlertRule(severity="warn", hold_seconds=1800),
}


def runbook(alert: str) -> str:
    """The section of the how-to about this alert."""
    return f"{RUNBOOK}#{alert.lower()}"
