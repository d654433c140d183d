"""Results of the workflow's queries, and the summary of a deleted endpoint."""

from dataclasses import dataclass, field
from typing import Any

from controller.whatif.advice import Difference
from policy.state.plan import Targets, Wait
from policy.state.worker import MachineStats


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """The `status` query: the overview for operators."""

    name: str
    id: int
    state: str
    """`active`, `suspended`, `stopped` or `deleting`."""
    config: dict[str, Any]
    workers: dict[str, int]
    """How many workers in each state, by its printed name."""
    targets: Targets
    waits: tuple[Wait, ...] = ()
    load_per_second: float = 0.0
    queued_load: float = 0.0
    queued_requests: int = 0
    dollars_per_hour: float = 0.0
    dollars: float = 0.0
    replan_at: float | None = None
    listed_at: float = 0.0
    under_way: tuple[str, ...] = ()
    """Operations without a result yet."""
    learned: MachineStats = MachineStats()
    key_version: int = 1
    created_at: float = 0.0
    engines: tuple[str, ...] = ()
    """Engines on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedHost:
    """A host on which something failed."""

    machine_id: int
    until: float
    """It is not rented before this time, Unix seconds."""
    reason: str
    workergroup_id: int = 0
    failed_at: float = 0.0
    """0: nothing failed on it; it is excluded for another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The `hosts` query: which hosts are not rented, and why."""

    blocked: tuple[BlockedHost, ...] = ()
    not_to_blame: tuple[BlockedHost, ...] = ()
    """The same failure was seen on several hosts, so these are not blocked; others are tried first."""
    paused: tuple[Wait, ...] = ()
    """Workergroups that pause because their launches fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The `costs` query. Dollars are as billed; since the last bill, computed from the recorded states."""

    dollars: float = 0.0
    by_state: dict[str, float] = field(default_factory=dict)
    """Dollars spent by worker state, with the API's state names."""
    difference: float = 0.0
    """The marketplace's bills minus the computed dollars, with bandwidth; negative: it billed less."""
    settled_at: float | None = None
    """When its bills were last read; None: never."""
    dollars_per_hour: float = 0.0
    by_worker: dict[str, float] = field(default_factory=dict)
    """$/h now, by launch id."""
    workers_rented: int = 0
    workers_gone: int = 0
    counted_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One column of the comparison; means are since advice was asked for."""

    hot: float = 0.0
    """Ready workers now."""
    booting: float = 0.0
    cold: float = 0.0
    hot_wanted: float = 0.0
    """Capacity, load/s."""
    dollars_per_hour: float = 0.0
    """Now."""
    dollars: float = 0.0
    dollars_per_hour_mean: float = 0.0
    hot_mean: float | None = None
    wait_seconds_mean: float | None = None
    """Expected queue time of a unit of load; None: not measured here."""
    late_share: float | None = None
    """Share of the load that waits longer than the live config's target_queue_time."""
    starts: int | None = None
    creates: int | None = None
    stops: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceView:
    """The `advice` query: a second config beside the live one. None of its operations are carried out."""

    active: bool
    config: dict[str, Any] = field(default_factory=dict)
    """What differs from the live config."""
    tuning: str = "default"
    since: float = 0.0
    until: float = 0.0
    """Time up to which both configs are simulated."""
    live: Side = Side()
    """The real endpoint."""
    live_imagined: Side = Side()
    """The simulation under the live config: the baseline for `advised`."""
    advised: Side = Side()
    differences: tuple[Difference, ...] = ()
    """Operations that only one of the two configs would order now for the live fleet."""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of a deleted endpoint's workflow: none of its instances are left on the marketplace."""

    endpoint_name: str
    workers_rented: int
    workers_gone: int
    dollars: float
    lived_seconds: float
