"""Rolling updates: bring every worker to its workergroup's revision and keep the needed capacity ready."""

import math

from policy.capacity.limits import workers_max
from policy.capacity.supply import holds_requests, takes_requests
from policy.planning.inputs import PlanInputs
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_hot
from policy.state.operator_actions import is_held
from policy.state.worker import Goal
from policy.wording import Reason, load
from stoker_wire.states import WorkerState as S

UPDATING = frozenset({S.UPDATE_READY, S.UPDATE_REBOOTING, S.UPDATE_STARTING})
"""States of a worker whose update has begun."""


def update_idle_workers(builder: PlanBuilder) -> None:
    """Update workers that take no requests: cold ones in place, first boots by starting over."""
    if not builder.has_outdated:
        return
    for worker in builder:
        if not builder.is_outdated(worker) or is_held(worker) or not builder.is_free(worker):
            continue
        revision = builder.groups[worker.workergroup_id].revision
        outdated = f"revision {worker.revision} is outdated, current is {revision}"
        if worker.failures >= builder.tuning.update_attempts_max and not is_hot(worker):
            builder.destroy(worker, Reason(f"update to revision {revision} failed {worker.failures} times"))
        elif worker.state in (S.INACTIVE, S.UPDATE_READY):
            builder.update(worker, Reason(outdated))
        elif worker.state is S.CREATED or (is_booting(worker) and not worker.loaded_once):
            # Starting over costs less than loading the old revision first, and a fixed template need not wait for the
            # boot deadline of the broken one.
            builder.destroy(worker, Reason(f"{outdated}; still {worker.state.words}"))


def update_surge(builder: PlanBuilder) -> float:
    """Extra hot capacity while ready workers wait for their update: one worker's, load/s."""
    if not builder.has_outdated:
        return 0.0
    outdated = [worker for worker in builder if builder.is_outdated(worker) and takes_requests(worker)]
    return max((builder.perfs.worker(worker) for worker in outdated), default=0.0)


def update_ready_workers(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Drain some ready workers for their update while the demand stays covered without them."""
    if not builder.has_outdated:
        return
    outdated = [worker for worker in builder if builder.is_outdated(worker) and takes_requests(worker)]
    if not outdated or builder.grew_recently():
        return
    needed = inputs.demand.hot
    ready = sum(builder.perfs.worker(worker) for worker in builder if takes_requests(worker))
    count = sum(takes_requests(worker) for worker in builder)
    in_progress = sum(
        worker.state in UPDATING or (worker.drain is not None and worker.drain.goal is Goal.UPDATE)
        for worker in builder
    )
    at_once = max(1, math.ceil((count + in_progress) * builder.tuning.update_share_max)) - in_progress
    # Without room for a substitute, requests wait in the engine during each update.
    full = len(builder.workers) >= workers_max(builder.config)
    # Idle workers first: their drain ends at once.
    for worker in sorted(outdated, key=lambda each: (holds_requests(each), each.load, each.launch_id)):
        perf = builder.perfs.worker(worker)
        if at_once <= 0 or not builder.is_free(worker):
            continue
        idle = inputs.forecast.settled and inputs.demand.predicted <= 0 and not holds_requests(worker)
        revision = builder.groups[worker.workergroup_id].revision
        cause = f"rolling update to revision {revision}"
        if ready - perf < needed and not idle and not full:
            stays = f"{load(ready - perf)} would stay ready, {load(needed)} needed"
            builder.wait("busy", worker.launch_id, f"{cause} waits for capacity; {stays}")
            return
        numbers = {"ready_after": ready - perf, "hot_wanted": needed}
        stays = f"{load(ready - perf)} ready without it, {load(needed)} needed"
        builder.drain(worker, Goal.UPDATE, Reason(cause, numbers).also(stays), cause=cause)
        ready, at_once = ready - perf, at_once - 1
