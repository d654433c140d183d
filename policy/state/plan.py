"""A plan is a value: what to do, why, and what is waited for. Somebody else carries it out."""

from dataclasses import dataclass
from typing import Literal

from policy.state.observation import Memory
from policy.state.worker import Drain, HostFailure
from stoker_wire.market import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Ask the marketplace which offers are eligible for a workergroup."""

    workergroup_id: int
    reason: str
    op: Literal["search"] = "search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recruit:
    """Rent this offer; the instance is labelled with the launch id, so a retry never rents twice."""

    launch_id: str
    workergroup_id: int
    offer: Offer
    reason: str
    perf_estimate: float = 0.0
    """What it is expected to do, load/s; 0: nothing is known."""
    revision: int = 1
    """The workergroup's revision that it is launched from."""
    op: Literal["recruit"] = "recruit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Start a cold worker."""

    launch_id: str
    reason: str
    op: Literal["activate"] = "activate"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDrain:
    """Give a ready worker no new requests."""

    launch_id: str
    drain: Drain
    reason: str
    op: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDrain:
    """The worker is wanted again before it was stopped: the cheapest capacity there is."""

    launch_id: str
    reason: str
    op: Literal["cancel_drain"] = "cancel_drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Stop a worker; its disk stays."""

    launch_id: str
    reason: str
    op: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """Release a worker for good. Repeated until the marketplace says that it is gone."""

    launch_id: str
    reason: str
    op: Literal["destroy"] = "destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot:
    """Restart a worker's container to recover it."""

    launch_id: str
    reason: str
    op: Literal["reboot"] = "reboot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Bring a worker to its workergroup's current revision; it is inactive, or drained for the purpose."""

    launch_id: str
    revision: int
    reason: str
    op: Literal["update"] = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollInstances:
    """List the endpoint's instances on the marketplace and reconcile."""

    reason: str
    whole: bool = True
    """Everything that carries the endpoint's name; else its known workers alone, which is one call."""
    op: Literal["poll"] = "poll"


# `op` tells the records apart in a history: Stop and Destroy would read the same without it.
QUEUE_SECONDS_MAX = 1e6
"""Stands for never: infinity has no JSON."""

Operation = (
    Search | Recruit | Activate | StartDrain | CancelDrain | Stop | Destroy | Reboot | Update | PollInstances
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that the plan would do but for what it waits for."""

    subject: str
    reason: str
    until: float | None = None
    code: str = "busy"
    """For clients in the queue: `booting`, `recruiting`, `no_capacity`, `stopped`, `budget`, `busy`."""


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
    """Expected queue time over the endpoint; `QUEUE_SECONDS_MAX` when something waits and nobody is ready."""
    dollars_per_hour: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything decided at one look. Planning again on the resulting fleet changes nothing."""

    operations: tuple[Operation, ...] = ()
    targets: Targets = Targets()
    waits: tuple[Wait, ...] = ()
    replan_at: float | None = None
    """When, without any news, the next look is due."""
    memory: Memory = Memory()
    failed_hosts: tuple[HostFailure, ...] = ()
    """Hosts to remember as failed from now on."""
