"""Builds the results of the queries from the record."""

from controller import plan_due
from controller.answers import (
    AdviceView,
    BlockedHost,
    Costs,
    Deleted,
    EndpointStatus,
    Hosts,
    Side,
)
from controller.state import EndpointStateBook
from controller.whatif.advice import summary
from controller.whatif.fleet import WhatIfFleet
from policy.state.host_failures import split
from policy.state.lifecycle import is_booting
from policy.state.worker import HostFailure, Worker
from stoker_wire.states import WorkerState


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
    return Hosts(
        blocked=tuple(map(_host, blocked)),
        not_to_blame=tuple(map(_host, lifted)),
        paused=tuple(wait for wait in record.waits if wait.code == "worker_failed"),
    )


def _host(failure: HostFailure) -> BlockedHost:
    return BlockedHost(
        machine_id=failure.machine_id,
        until=failure.until,
        reason=failure.reason,
        workergroup_id=failure.workergroup_id,
        failed_at=failure.failed_at,
    )


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
        tuning=asked.tuning,
        since=asked.since,
        until=asked.advised.clock,
        live=live,
        live_imagined=_side(asked.live),
        advised=_side(asked.advised),
        differences=asked.differences,
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


def workers(book: EndpointStateBook) -> list[Worker]:
    """Every worker, in the order of their launches."""
    return list(book.record.workers.values())


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
