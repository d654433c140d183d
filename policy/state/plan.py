"""The planner's output: operations with reasons, targets, and what is waited for. The controller carries it out."""

from dataclasses import dataclass, field
from typing import Literal

from policy.state.observation import Memory
from policy.state.worker import Drain, HostFailure
from stoker_wire.market import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """The part that every operation has: why it is ordered."""

    reason: str
    """For people: one clause of cause, one of numbers."""
    numbers: dict[str, float] = field(default_factory=dict)
    """The numbers of the reason, for programs."""
    step: str = ""
    """The planner's step that ordered it; `docs/explanation/scaling.md` explains each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(_Decision):
    """Search the marketplace for offers that match a workergroup."""

    workergroup_id: int
    op: Literal["search"] = "search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recruit(_Decision):
    """Rent this offer. The launch id is in the instance's label, so that a retry never rents twice."""

    launch_id: str
    workergroup_id: int
    offer: Offer
    perf_estimate: float = 0.0
    """Expected perf, load/s; 0: unknown."""
    revision: int = 1
    """The workergroup's revision to launch."""
    op: Literal["recruit"] = "recruit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate(_Decision):
    """Start a cold worker."""

    launch_id: str
    op: Literal["activate"] = "activate"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDrain(_Decision):
    """Stop routing requests to a ready worker."""

    launch_id: str
    drain: Drain
    op: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDrain(_Decision):
    """Route requests to a draining worker again: the cheapest way to add capacity."""

    launch_id: str
    op: Literal["cancel_drain"] = "cancel_drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(_Decision):
    """Stop a worker and keep its disk."""

    launch_id: str
    op: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy(_Decision):
    """Release a worker. Repeated until the marketplace reports it gone."""

    launch_id: str
    op: Literal["destroy"] = "destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot(_Decision):
    """Restart a worker's container after a failure."""

    launch_id: str
    op: Literal["reboot"] = "reboot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(_Decision):
    """Update a worker to its workergroup's current revision. It is inactive or drained."""

    launch_id: str
    revision: int
    op: Literal["update"] = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollInstances(_Decision):
    """List the endpoint's instances on the marketplace and reconcile the workers with them."""

    whole: bool = True
    """List by label, which also finds orphans; else list the known instances only, which is one call."""
    op: Literal["poll"] = "poll"


QUEUE_SECONDS_MAX = 1e6
"""Stands for infinity, which JSON cannot represent."""

Operation = (
    Search | Recruit | Activate | StartDrain | CancelDrain | Stop | Destroy | Reboot | Update | PollInstances
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that the plan postpones, and the reason."""

    subject: str
    reason: str
    until: float | None = None
    code: str = "busy"
    """Status for queued clients: `booting`, `recruiting`, `no_capacity`, `stopped`, `budget`, `busy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The numbers behind a plan. Capacities are load/s."""

    predicted_load: float = 0.0
    hot_wanted: float = 0.0
    hot_ready: float = 0.0
    hot_booting: float = 0.0
    total_wanted: float = 0.0
    total_have: float = 0.0
    workers_wanted_min: int = 0
    queue_seconds: float = 0.0
    """Expected queue time; `QUEUE_SECONDS_MAX` if requests wait and no worker is ready."""
    dollars_per_hour: float = 0.0
    reason: str = ""
    hot_kept: float = 0.0
    """Capacity below which no ready worker is drained."""
    kept_for: str = ""
    """The cause of `hot_kept`; empty: nothing is kept, or the endpoint is not scaled."""
    kept_by: str = ""
    """The function that decided it; `docs/explanation/scaling.md` has a numbered sentence for each."""
    kept_rule: int = 0
    """The number of that sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All decisions of one planning run. Planning again on the resulting fleet changes nothing."""

    operations: tuple[Operation, ...] = ()
    targets: Targets = Targets()
    waits: tuple[Wait, ...] = ()
    replan_at: float | None = None
    """When the next plan is due if no event comes before."""
    memory: Memory = Memory()
    failed_hosts: tuple[HostFailure, ...] = ()
    """Hosts to block from now on."""
