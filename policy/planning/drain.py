"""Workers that leave service: a ready worker is drained before it is stopped, updated or released."""

from policy.capacity.budget import counted_dollars_per_hour
from policy.capacity.supply import holds_requests, stays_after_drain
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_hot
from policy.state.operator_actions import GOALS, begun_drain, is_held
from policy.state.worker import Drain, Goal, Worker
from policy.wording import Reason, count, duration, machine, requests
from stoker_wire.control import WorkerAction
from stoker_wire.states import WorkerState as S

_NOT_STOPPED = frozenset({S.PENDING, S.STOPPING, S.INACTIVE, S.CREATED})
"""States of a worker that has no instance yet, or needs no stop."""
_STOPPED = Reason("endpoint_state is stopped")
_DELETED = Reason("the endpoint is being deleted")


def is_drained(worker: Worker) -> bool:
    """Whether a draining worker is empty and stays empty.

    Every live engine has seen the drain, no ticket is open, and a report made after its begin shows no requests.
    """
    drain = worker.drain
    return (
        drain is not None
        and drain.seen_at is not None
        and not holds_requests(worker)
        and worker.reported_at is not None
        and worker.reported_at > drain.since
    )


def finish_drains(builder: PlanBuilder) -> None:
    """Carry out the goal of each drain once the worker is empty, does not respond, or is past its deadline."""
    for worker in builder:
        drain = worker.drain
        if drain is None or not is_hot(worker) or not builder.is_free(worker):
            continue
        if is_drained(worker):
            how = f"drained in {builder.now - drain.since:.0f} s"
        elif _is_past_deadline(builder, drain):
            how = f"drain deadline of {drain.deadline - drain.since:.0f} s passed with {requests(worker)}"
        elif does_not_respond(builder, worker):
            how = "does not respond while it drains"
        else:
            if drain.until_idle and builder.now >= drain.deadline:
                since = duration(builder.now - drain.since)
                builder.wait(
                    "busy",
                    worker.launch_id,
                    f"{machine(worker)} drains for {since} and stops when its requests end; {requests(worker)}",
                )
            builder.wakes.append(drain.deadline)
            continue
        seconds = builder.now - drain.since
        _carry_out(builder, worker, drain.goal, Reason(f"{how} ({drain.reason})", {"drain_seconds": seconds}))


def _is_past_deadline(builder: PlanBuilder, drain: Drain) -> bool:
    """Whether a drain is cut off. A drain that only saves money waits for its requests as long as they take."""
    listening = builder.observation.listening_since + builder.tuning.suspect_reboot_seconds
    if builder.now < max(drain.deadline, listening):
        return False
    return drain.goal is not Goal.STOP or (builder.is_known and not drain.until_idle)


def does_not_respond(builder: PlanBuilder, worker: Worker) -> bool:
    """Whether a ready worker has not responded for so long that its requests are lost."""
    since = worker.suspect_since
    if since is None or not builder.is_known:
        return False
    return (
        builder.now - max(since, builder.observation.listening_since) >= builder.tuning.suspect_reboot_seconds
    )


def carry_out_actions(builder: PlanBuilder) -> None:
    """Do what an operator asked of single workers. A ready worker is drained first."""
    for worker in builder:
        if worker.asked is None or worker.state is S.DESTROYING or not builder.is_free(worker):
            continue
        goal, why = GOALS[worker.asked], Reason(f"an operator asked to {worker.asked.value} it")
        if is_hot(worker):
            # A release that has begun is not taken back for less.
            if not begun_drain(worker) and stays_after_drain(worker):
                retire(builder, worker, goal, why)
        elif worker.asked is WorkerAction.DESTROY:
            builder.destroy(worker, why)
        elif worker.asked is WorkerAction.REBOOT and worker.state is S.ERROR:
            if builder.affords(worker.dollars_per_hour, instead_of=counted_dollars_per_hour(worker)):
                builder.reboot(worker, why)
        elif worker.asked is WorkerAction.DRAIN and worker.state not in _NOT_STOPPED:
            builder.stop(worker, why)


def set_drain_deadlines(builder: PlanBuilder, why: Reason) -> None:
    """Give drains that wait until their worker is idle a deadline: the reason is no longer only to save money."""
    for worker in builder:
        drain = worker.drain
        if drain is not None and drain.until_idle and is_hot(worker) and builder.is_free(worker):
            limit = f"the drain ends after {duration(builder.config.drain_seconds_max)} at the latest"
            builder.drain(worker, drain.goal, why.also(limit), cause=why.text)


def retire(builder: PlanBuilder, worker: Worker, goal: Goal, why: Reason) -> None:
    """Take a ready worker out of service: by a drain, or at once if it does not respond."""
    if does_not_respond(builder, worker):
        _carry_out(builder, worker, goal, why.also("it does not respond"))
    else:
        builder.drain(worker, goal, why)


def _carry_out(builder: PlanBuilder, worker: Worker, goal: Goal, why: Reason) -> None:
    if goal is Goal.DESTROY or worker.workergroup_id not in builder.groups or builder.observation.deleting:
        builder.destroy(worker, why)
    elif goal is Goal.UPDATE:
        builder.update(worker, why)
    elif goal is Goal.REBOOT:
        builder.reboot(worker, why)
    else:
        builder.stop(worker, why)


def release(builder: PlanBuilder, worker: Worker, why: Reason) -> None:
    """Release a worker for good: at once if it takes no requests, else through a drain."""
    if worker.state is S.DESTROYING or not builder.is_free(worker):
        return
    if not is_hot(worker):
        builder.destroy(worker, why)
    elif stays_after_drain(worker):
        retire(builder, worker, Goal.DESTROY, why)


def release_orphans(builder: PlanBuilder) -> None:
    """Release workers whose workergroup was removed."""
    for worker in builder:
        if worker.workergroup_id not in builder.groups:
            release(builder, worker, Reason(f"workergroup {worker.workergroup_id} was removed"))


def release_all(builder: PlanBuilder) -> None:
    """Release every worker of an endpoint that is being deleted."""
    for worker in builder:
        release(builder, worker, _DELETED)
    if builder.workers:
        left = count(len(builder.workers), "worker")
        builder.wait("stopped", "endpoint", f"the endpoint is being deleted; {left} to release")


def repeat_releases(builder: PlanBuilder) -> None:
    """Repeat releases that the marketplace has not confirmed."""
    for worker in builder:
        if worker.state is S.DESTROYING and builder.is_free(worker):
            since = duration(builder.now - worker.since)
            builder.destroy(worker, Reason(f"not confirmed by the marketplace; release ordered {since} ago"))


def stop_all(builder: PlanBuilder) -> None:
    """Stop every worker of an endpoint whose `endpoint_state` is stopped."""
    set_drain_deadlines(builder, _STOPPED)
    for worker in builder:
        if not builder.is_free(worker):
            continue
        if is_hot(worker) and worker.drain is None:
            retire(builder, worker, Goal.STOP, _STOPPED)
        elif is_booting(worker) and worker.state is not S.PENDING:
            builder.stop(worker, _STOPPED)
    builder.wait("stopped", "endpoint", "endpoint_state is stopped; set it to active to serve requests")


def keep_all(builder: PlanBuilder) -> None:
    """Keep the workers of a suspended endpoint as they are: cancel drains that only save money."""
    for worker in builder:
        drain = worker.drain
        saves = drain is not None and drain.goal is Goal.STOP and not is_held(worker)
        if is_hot(worker) and saves and builder.is_free(worker):
            builder.cancel_drain(worker, Reason("endpoint_state is suspended; workers stay as they are"))
    if builder.observation.load.backlog_requests:
        builder.wait(
            "busy", "endpoint", "endpoint_state is suspended; requests wait for the existing workers"
        )
