"""Ways out: finish drains, dismiss strangers, stop all, delete all. Drain before stop, always."""

from policy.capacity.supply import holds_requests, stays_after_drain
from policy.planning.planned_fleet import PlannedFleet
from policy.state.lifecycle import is_booting, is_hot
from policy.state.plan import CancelDrain, Destroy, Stop, Update
from policy.state.worker import Drain, Goal, Worker
from policy.wording import duration, machine, requests
from stoker_wire.states import WorkerState as S


def is_drained(worker: Worker) -> bool:
    """Nothing on it, and nothing on its way: every live engine has seen the drain, no ticket is open, and the worker
    itself has said, after the drain began, that it holds nothing."""
    drain = worker.drain
    return (
        drain is not None
        and drain.seen_at is not None
        and not holds_requests(worker)
        and worker.reported_at is not None
        and worker.reported_at > drain.since
    )


def finish_drains(draft: PlannedFleet) -> None:
    """Carry out what each drain was for, once the worker is empty, broken, or past its deadline."""
    for worker in draft:
        drain = worker.drain
        if drain is None or not is_hot(worker) or not draft.free(worker):
            continue
        name = machine(worker, draft.perfs)
        if is_drained(worker):
            why = f"drained after {draft.now - drain.since:.0f} s"
        elif _is_past_deadline(draft, drain):
            why = f"drain deadline of {drain.deadline - drain.since:.0f} s passed with {requests(worker)}"
        elif is_mute(draft, worker):
            why = "it drains and does not answer"
        else:
            if drain.until_idle and draft.now >= drain.deadline:
                said = f"{name} drains since {duration(draft.now - drain.since)} and holds {requests(worker)}"
                draft.wait("busy", worker.launch_id, f"{said}: it is stopped when they end")
            draft.wakes.append(drain.deadline)
            continue
        _carry_out(draft, worker, drain.goal, f"{name}: {why}; {drain.reason}")


def _is_past_deadline(draft: PlannedFleet, drain: Drain) -> bool:
    """Whether its time is over. A worker stopped only to save money would be started again for the same requests."""
    if draft.now < max(
        drain.deadline, draft.observation.listening_since + draft.tuning.suspect_reboot_seconds
    ):
        return False
    return drain.goal is not Goal.STOP or (draft.is_known and not drain.until_idle)


def is_mute(draft: PlannedFleet, worker: Worker) -> bool:
    """Whether a ready worker has not answered for so long that waiting for its requests is in vain."""
    since = worker.suspect_since
    if since is None or not draft.is_known:
        return False
    return draft.now - max(since, draft.observation.listening_since) >= draft.tuning.suspect_reboot_seconds


def bound_drains(draft: PlannedFleet, why: str) -> None:
    """Workers that drain until they are idle get a deadline: it is not only to save money any more."""
    for worker in draft:
        drain = worker.drain
        if drain is not None and drain.until_idle and is_hot(worker) and draft.free(worker):
            draft.drain(worker, drain.goal, f"{drain.reason}; {why}")


def let_go(draft: PlannedFleet, worker: Worker, goal: Goal, why: str) -> None:
    """Take a ready worker out of service: through a drain, or at once if it does not answer anyway."""
    name = machine(worker, draft.perfs)
    if is_mute(draft, worker):
        _carry_out(draft, worker, goal, f"{name}: {why}, and it does not answer")
    else:
        draft.drain(worker, goal, f"drain {name}: {why}")


def _carry_out(draft: PlannedFleet, worker: Worker, goal: Goal, reason: str) -> None:
    group = draft.groups.get(worker.workergroup_id)
    if goal is Goal.DESTROY or group is None or draft.observation.deleting:
        draft.order(Destroy(launch_id=worker.launch_id, reason=f"release {reason}"))
    elif goal is Goal.UPDATE:
        draft.order(
            Update(launch_id=worker.launch_id, revision=group.revision, reason=f"update {reason}"),
        )
    else:
        draft.order(Stop(launch_id=worker.launch_id, reason=f"stop {reason}"))


def dismiss(draft: PlannedFleet, worker: Worker, why: str) -> None:
    """Release a worker: at once if it takes no requests, else through a drain."""
    if worker.state is S.DESTROYING or not draft.free(worker):
        return
    name = machine(worker, draft.perfs)
    if not is_hot(worker):
        draft.order(Destroy(launch_id=worker.launch_id, reason=f"release {name}: {why}"))
    elif stays_after_drain(worker):
        let_go(draft, worker, Goal.DESTROY, why)


def dismiss_orphans(draft: PlannedFleet) -> None:
    """Workers whose workergroup was removed."""
    for worker in draft:
        if worker.workergroup_id not in draft.groups:
            dismiss(draft, worker, f"its workergroup {worker.workergroup_id} was removed")


def delete_all(draft: PlannedFleet) -> None:
    """The endpoint is being deleted."""
    for worker in draft:
        dismiss(draft, worker, "the endpoint is being deleted")
    if draft.workers:
        draft.wait("stopped", "endpoint", f"{len(draft.workers)} worker(s) to be released before it is gone")


def release_again(draft: PlannedFleet) -> None:
    """What is being released, and was not confirmed."""
    for worker in draft:
        if worker.state is S.DESTROYING and draft.free(worker):
            reason = f"release {machine(worker, draft.perfs)}: the marketplace has not confirmed it yet"
            draft.order(Destroy(launch_id=worker.launch_id, reason=reason))


def stop_all(draft: PlannedFleet) -> None:
    """The endpoint is stopped: every worker goes cold."""
    bound_drains(draft, "the endpoint is stopped")
    for worker in draft:
        if not draft.free(worker):
            continue
        name = machine(worker, draft.perfs)
        if is_hot(worker) and worker.drain is None:
            let_go(draft, worker, Goal.STOP, "the endpoint is stopped")
        elif is_booting(worker) and worker.state is not S.PENDING:
            draft.order(Stop(launch_id=worker.launch_id, reason=f"stop {name}: the endpoint is stopped"))
    draft.wait("stopped", "endpoint", "the endpoint is stopped; set endpoint_state to active to serve again")


def keep_all(draft: PlannedFleet) -> None:
    """The endpoint is suspended: drains that only saved money are called off."""
    for worker in draft:
        drain = worker.drain
        if is_hot(worker) and drain is not None and drain.goal is Goal.STOP and draft.free(worker):
            reason = (
                f"keep {machine(worker, draft.perfs)}: the endpoint is suspended, workers stay as they are"
            )
            draft.order(CancelDrain(launch_id=worker.launch_id, reason=reason))
    if draft.observation.load.backlog_requests:
        draft.wait(
            "busy", "endpoint", "the endpoint is suspended: it is not scaled, requests wait for its workers"
        )
