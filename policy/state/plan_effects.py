"""The fleet right after a plan's operations were accepted: the workflow's own bookkeeping, and the tests'."""

from collections.abc import Iterable
from dataclasses import replace

from policy.state.lifecycle import Impossible, advance, counts_in_full
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Observation
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Look,
    Operation,
    Plan,
    Reboot,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Update,
)
from policy.state.worker import Learned, Worker
from stoker_wire.states import WorkerState as S


def expected(fleet: Iterable[Worker], plan: Plan, now: float) -> tuple[Worker, ...]:
    """The fleet as it is recorded when these operations start. An operation on a worker that is gone is dropped."""
    workers = {worker.launch_id: worker for worker in fleet}
    for operation in plan.operations:
        if isinstance(operation, Recruit):
            recruited = launched(operation, now)
            workers[recruited.launch_id] = recruited
        elif not isinstance(operation, Search | Look) and operation.launch_id in workers:
            worker = workers[operation.launch_id]
            workers[worker.launch_id] = ordered(worker, operation, now)
    return tuple(workers.values())


def expected_learned(learned: Learned, plan: Plan, now: float) -> Learned:
    """What is known after the plan: the hosts that it gave up."""
    return remember_hosts(learned, plan.failed_hosts, now)


def after(observation: Observation, plan: Plan) -> Observation:
    """The observation at the same moment, with the plan's operations under way: planning on it changes nothing."""
    recruited = {each.launch_id for each in plan.operations if isinstance(each, Recruit)}
    searching = {each.workergroup_id for each in plan.operations if isinstance(each, Search)}
    return replace(
        observation,
        workers=expected(observation.workers, plan, observation.now),
        learned=expected_learned(observation.learned, plan, observation.now),
        memory=plan.memory,
        looking=observation.looking or any(isinstance(each, Look) for each in plan.operations),
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
"""What may be ordered in which state; stop and destroy go by the lifecycle alone."""


def launched(operation: Recruit, now: float) -> Worker:
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


def ordered(worker: Worker, operation: Operation, now: float) -> Worker:
    """The worker once the operation on it is under way.

    Raises:
        Impossible: its state does not allow the operation.
    """
    allowed = _ALLOWED.get(operation.op)
    if allowed is not None and worker.state not in allowed:
        states = ", ".join(sorted(state.printed for state in allowed))
        raise Impossible(
            f"{operation.op} of worker {worker.launch_id}, which is {worker.state.printed}; expected one of: {states}"
        )
    match operation:
        case Activate():
            to = S.STARTING if worker.loaded_once else S.LOADING
            return advance(worker, to, now, operation="start", market_status="")
        case StartDrain():
            return worker.but(drain=operation.drain)
        case CancelDrain():
            return worker.but(drain=None)
        case Stop():
            given_up = worker.state is S.STARTING
            stopped = advance(worker, S.STOPPING, now, operation="stop")
            return stopped.but(starts_given_up=worker.starts_given_up + 1) if given_up else stopped
        case Destroy():
            left = counts_in_full(worker)
            return advance(worker, S.DESTROYING, now, operation="destroy", left_running=left)
        case Reboot():
            return advance(worker, S.REBOOTING, now, operation="reboot", reboots=worker.reboots + 1)
        case Update():
            if worker.state in (S.INACTIVE, S.CREATED):
                return worker.but(operation="update")
            return advance(worker, S.UPDATE_REBOOTING, now, operation="update")
        case _:
            return worker
