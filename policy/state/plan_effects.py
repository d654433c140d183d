"""The effect of a plan on the records: the state right after its operations have begun."""

from collections.abc import Iterable
from dataclasses import replace

from policy.state.lifecycle import InvalidTransition, advance, counts_in_full
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Observation
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Operation,
    Plan,
    PollInstances,
    Reboot,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Update,
)
from policy.state.worker import MachineStats, Worker
from stoker_wire.states import WorkerState as S


def expected(fleet: Iterable[Worker], plan: Plan, now: float) -> tuple[Worker, ...]:
    """The workers once these operations have begun. Operations on workers that are gone are ignored."""
    workers = {worker.launch_id: worker for worker in fleet}
    for operation in plan.operations:
        if isinstance(operation, Recruit):
            recruited = launched_worker(operation, now)
            workers[recruited.launch_id] = recruited
        elif not isinstance(operation, Search | PollInstances) and operation.launch_id in workers:
            worker = workers[operation.launch_id]
            workers[worker.launch_id] = apply_operation(worker, operation, now)
    return tuple(workers.values())


def expected_learned(learned: MachineStats, plan: Plan, now: float) -> MachineStats:
    """The machine statistics with the hosts that the plan blocks."""
    return remember_hosts(learned, plan.failed_hosts, now)


def after(observation: Observation, plan: Plan) -> Observation:
    """The observation at the same time with the plan's operations begun. Planning on it changes nothing."""
    recruited = {each.launch_id for each in plan.operations if isinstance(each, Recruit)}
    searching = {each.workergroup_id for each in plan.operations if isinstance(each, Search)}
    return replace(
        observation,
        workers=expected(observation.workers, plan, observation.now),
        learned=expected_learned(observation.learned, plan, observation.now),
        memory=plan.memory,
        listing_in_progress=observation.listing_in_progress
        or any(isinstance(each, PollInstances) for each in plan.operations),
        searching=tuple(sorted(searching.union(observation.searching))),
        launch_ids=tuple(each for each in observation.launch_ids if each not in recruited),
    )


_ALLOWED = {
    "activate": frozenset({S.INACTIVE, S.CREATED}),
    "drain": frozenset({S.READY}),
    "cancel_drain": frozenset({S.READY}),
    "reboot": frozenset({S.READY, S.ERROR}),
    "update": frozenset({S.INACTIVE, S.CREATED, S.READY, S.UPDATE_READY}),
}
"""States that allow each operation; for stop and destroy the lifecycle table decides."""


def launched_worker(operation: Recruit, now: float) -> Worker:
    """The worker that a recruit makes."""
    offer = operation.offer
    return Worker(
        launch_id=operation.launch_id,
        workergroup_id=operation.workergroup_id,
        revision=operation.revision,
        kind=offer.kind,
        state=S.PENDING,
        since=now,
        launched_at=now,
        offer_id=offer.id,
        machine_id=offer.machine_id,
        dollars_per_hour=offer.dph_total,
        offered_dollars_per_hour=offer.dph_total,
        perf_estimate=operation.perf_estimate,
        operation="create",
    )


def apply_operation(worker: Worker, operation: Operation, now: float) -> Worker:
    """The worker once the operation on it has begun.

    Raises:
        InvalidTransition: its state does not allow the operation.
    """
    allowed = _ALLOWED.get(operation.op)
    if allowed is not None and worker.state not in allowed:
        states = ", ".join(sorted(state.printed for state in allowed))
        raise InvalidTransition(
            f"{operation.op} of worker {worker.launch_id}, which is {worker.state.printed}; expected one of: {states}"
        )
    match operation:
        case Activate():
            to = S.STARTING if worker.loaded_once else S.LOADING
            return advance(worker, to, now, operation="start", market_status="")
        case StartDrain():
            return worker.replace(drain=operation.drain)
        case CancelDrain():
            return worker.replace(drain=None)
        case Stop():
            given_up = worker.state is S.STARTING
            stopped = advance(worker, S.STOPPING, now, operation="stop")
            return stopped.replace(starts_given_up=worker.starts_given_up + 1) if given_up else stopped
        case Destroy():
            left = counts_in_full(worker)
            return advance(worker, S.DESTROYING, now, operation="destroy", ran_at_release=left)
        case Reboot():
            return advance(worker, S.REBOOTING, now, operation="reboot", reboots=worker.reboots + 1)
        case Update():
            if worker.state in (S.INACTIVE, S.CREATED):
                return worker.replace(operation="update")
            return advance(worker, S.UPDATE_REBOOTING, now, operation="update")
        case _:
            return worker
