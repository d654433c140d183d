"""The effect of an operation on a worker's record: its state right after the operation has begun."""

from policy.state.lifecycle import InvalidTransition, advance, counts_in_full
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Operation,
    Reboot,
    Recruit,
    StartDrain,
    Stop,
    Update,
)
from policy.state.worker import Worker
from stoker_wire.control import WorkerAction
from stoker_wire.states import WorkerState as S

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
        boot=((S.PENDING.value, round(now, 1)),),
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
            given_up, ran = worker.state is S.STARTING, counts_in_full(worker)
            stopped = advance(worker, S.STOPPING, now, operation="stop", ran_at_release=ran)
            return stopped.replace(starts_given_up=worker.starts_given_up + 1) if given_up else stopped
        case Destroy():
            left = counts_in_full(worker)
            return advance(worker, S.DESTROYING, now, operation="destroy", ran_at_release=left)
        case Reboot():
            # An operator's reboot is no failure of the worker.
            reboots = worker.reboots + (worker.asked is not WorkerAction.REBOOT)
            return advance(worker, S.REBOOTING, now, operation="reboot", reboots=reboots)
        case Update():
            if worker.state in (S.INACTIVE, S.CREATED):
                return worker.replace(operation="update")
            return advance(worker, S.UPDATE_REBOOTING, now, operation="update")
        case _:
            return worker
