"""Results of the workflow's queries, and the summary of a deleted endpoint, built from the record."""

from dataclasses import dataclass, field
from typing import Any

from controller import plan_due
from controller.state import EndpointStateBook
from controller.whatif.advice import summary
from controller.whatif.fleet import WhatIfFleet
from policy.state.host_failures import split
from policy.state.lifecycle import is_booting
from policy.state.plan import Targets, Wait
from policy.state.worker import HostFailure, MachineStats
from stoker_wire.states import WorkerState


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
class Hosts:
    """The `hosts` query: which hosts are not rented, and why."""

    blocked: tuple[HostFailure, ...] = ()
    not_to_blame: tuple[HostFailure, ...] = ()
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
    since: float = 0.0
    until: float = 0.0
    """Time up to which both configs are simulated."""
    live: Side = Side()
    """The real endpoint."""
    live_imagined: Side = Side()
    """The simulation under the live config: the baseline for `advised`."""
    advised: Side = Side()
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of a deleted endpoint's workflow: none of its instances are left on the marketplace."""

    endpoint_name: str
    workers_rented: int
    workers_gone: int
    dollars: float
    lived_seconds: float


def endpoint_state(book: EndpointStateBook) -> str:
    """`active`, `suspended`, `stopped`, or `deleting`."""
    return "deleting" if book.record.deleting else book.record.config.endpoint_state.value


def status(book: EndpointStateBook, under_way: tuple[str, ...]) -> EndpointStatus:
    """The status now."""
    record = book.record
    counts: dict[str, int] = {}
    for worker in record.workers.values():
        counts[worker.state.printed] = counts.get(worker.state.printed, 0) + 1
    return EndpointStatus(
        name=book.name,
        id=book.id,
        state=endpoint_state(book),
        config=record.config.model_dump(mode="json"),
        workers=counts,
        targets=record.targets,
        waits=record.waits,
        load_per_second=plan_due.level(record.load) or 0.0,
        queued_load=record.load.backlog_load,
        queued_requests=record.load.backlog_requests,
        dollars_per_hour=book.burn_dollars_per_hour(),
        dollars=record.ledger.dollars,
        replan_at=record.replan_at,
        listed_at=record.listed_at,
        under_way=under_way,
        learned=record.learned,
        key_version=record.key_version,
        created_at=book.created_at,
        engines=tuple(record.engines),
    )


def hosts(book: EndpointStateBook, now: float) -> Hosts:
    """The hosts that failed lately."""
    record = book.record
    blocked, lifted = split(record.learned.failed_hosts, record.workers.values(), now)
    paused = tuple(wait for wait in record.waits if wait.code == "worker_failed")
    return Hosts(blocked=blocked, not_to_blame=lifted, paused=paused)


def costs(book: EndpointStateBook) -> Costs:
    """The costs so far and the present prices."""
    record = book.record
    return Costs(
        dollars=record.ledger.dollars,
        by_state=dict(record.ledger.by_state),
        difference=record.ledger.difference,
        settled_at=record.ledger.settled_at,
        dollars_per_hour=book.burn_dollars_per_hour(),
        by_worker={w.launch_id: w.burn_dollars_per_hour for w in record.workers.values()},
        workers_rented=record.workers_rented,
        workers_gone=record.workers_gone,
        counted_until=record.ledger.until or 0.0,
    )


def advice(book: EndpointStateBook, now: float) -> AdviceView:
    """The comparison now."""
    record = book.record
    asked = record.advice
    if asked is None:
        return AdviceView(active=False)
    states = [worker.state for worker in record.workers.values()]
    hours = (now - asked.since) / 3600.0
    dollars = record.ledger.dollars - asked.dollars_before
    live = Side(
        hot=states.count(WorkerState.READY),
        booting=sum(is_booting(worker) for worker in record.workers.values()),
        cold=states.count(WorkerState.INACTIVE) + states.count(WorkerState.CREATED),
        hot_wanted=record.targets.hot_wanted,
        dollars_per_hour=book.burn_dollars_per_hour(),
        dollars=dollars,
        dollars_per_hour_mean=dollars / hours if hours > 0 else 0.0,
        reason=record.targets.reason,
    )
    return AdviceView(
        active=True,
        config=asked.patch.model_dump(mode="json", exclude_none=True),
        since=asked.since,
        until=asked.advised.clock,
        live=live,
        live_imagined=_side(asked.live),
        advised=_side(asked.advised),
        summary=summary(asked),
    )


def _side(shadow: WhatIfFleet) -> Side:
    tally = shadow.tally
    return Side(
        hot=shadow.hot,
        booting=shadow.booting,
        cold=len(shadow.machines) - shadow.hot - shadow.booting,
        hot_wanted=shadow.hot_wanted,
        dollars_per_hour=shadow.burn_dollars_per_hour,
        dollars=tally.dollars,
        dollars_per_hour_mean=tally.dollars_per_hour,
        hot_mean=tally.hot,
        wait_seconds_mean=tally.wait_seconds,
        late_share=tally.late_share,
        starts=tally.starts,
        creates=tally.creates,
        stops=tally.stops,
        reason=shadow.reason,
    )


def deleted(book: EndpointStateBook, now: float) -> Deleted:
    """The summary of a deleted endpoint."""
    record = book.record
    return Deleted(
        endpoint_name=book.name,
        workers_rented=record.workers_rented,
        workers_gone=record.workers_gone,
        dollars=round(record.ledger.dollars, 6),
        lived_seconds=round(now - book.created_at, 3) if book.created_at else 0.0,
    )
