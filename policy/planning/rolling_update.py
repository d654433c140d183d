"""Rolling updates: bring every worker to its workergroup's revision without dropping a request or needed capacity."""

import math

from policy.capacity.limits import workers_max
from policy.capacity.supply import holds_requests, takes_requests
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_hot
from policy.state.plan import Destroy, Update
from policy.state.worker import Goal, Worker
from policy.wording import load, machine
from stoker_wire.states import WorkerState as S

UPDATING = frozenset({S.UPDATE_READY, S.UPDATE_REBOOTING, S.UPDATE_STARTING})
"""Its update has begun."""


def is_outdated(draft: PlanBuilder, worker: Worker) -> bool:
    """Launched from an older revision than its workergroup has now."""
    group = draft.groups.get(worker.workergroup_id)
    return group is not None and worker.revision < group.revision


def update_idle(draft: PlanBuilder) -> None:
    """Workers that serve nobody: inactive ones are updated where they lie, first boots start over."""
    if not draft.outdated:
        return
    for worker in draft:
        if not is_outdated(draft, worker) or not draft.free(worker):
            continue
        name = machine(worker, draft.perfs)
        revision = draft.groups[worker.workergroup_id].revision
        step = f"revision {worker.revision} to {revision}"
        if worker.failures >= draft.tuning.update_attempts_max and not is_hot(worker):
            reason = f"release {name}: its update from {step} failed {worker.failures} times"
            draft.order(Destroy(launch_id=worker.launch_id, reason=reason))
        elif worker.state in (S.INACTIVE, S.UPDATE_READY):
            reason = f"update {name} from {step}: it holds no requests"
            draft.order(Update(launch_id=worker.launch_id, revision=revision, reason=reason))
        elif worker.state is S.CREATED or (is_booting(worker) and not worker.loaded_once):
            # it has not loaded yet: starting over costs less than loading the old version first, and a mended
            # template need not wait for the broken one's boot deadline
            reason = f"release {name}: still {worker.state.printed} with an outdated revision ({step})"
            draft.order(Destroy(launch_id=worker.launch_id, reason=reason))


def surge(draft: PlanBuilder) -> float:
    """Extra hot capacity to hold while ready workers wait for their update: one worker's, load/s."""
    if not draft.outdated:
        return 0.0
    outdated = [worker for worker in draft if is_outdated(draft, worker) and takes_requests(worker)]
    return max((draft.perfs.worker(worker) for worker in outdated), default=0.0)


def _is_full(draft: PlanBuilder) -> bool:
    """Whether nobody can stand in for a worker that is updated: then its requests wait in the engine for as long as that takes.

    What was woken, or called back from its drain, a moment ago is let be for a while.
    """
    if sum(1 for _ in draft) < workers_max(draft.config):
        return False
    grew_at = draft.memory.grew_at
    if grew_at is None or draft.now - grew_at >= draft.tuning.scale_up_hold_seconds:
        return True
    draft.wakes.append(grew_at + draft.tuning.scale_up_hold_seconds)
    return False


def update_ready(draft: PlanBuilder, needed: float) -> None:
    """Drain a few ready workers for their update, as long as `needed` load/s stay ready without them."""
    if not draft.outdated:
        return
    outdated = [worker for worker in draft if is_outdated(draft, worker) and takes_requests(worker)]
    if not outdated:
        return
    ready = sum(draft.perfs.worker(worker) for worker in draft if takes_requests(worker))
    count = sum(takes_requests(worker) for worker in draft)
    under_way = sum(
        worker.state in UPDATING or (worker.drain is not None and worker.drain.goal is Goal.UPDATE)
        for worker in draft
    )
    at_once = max(1, math.ceil((count + under_way) * draft.tuning.update_share_max)) - under_way
    full = _is_full(draft)
    # the idle ones first: they are done at once
    for worker in sorted(outdated, key=lambda each: (holds_requests(each), each.load, each.launch_id)):
        perf = draft.perfs.worker(worker)
        if at_once <= 0 or not draft.free(worker):
            continue
        calm = draft.forecast.settled and draft.want.predicted <= 0 and not holds_requests(worker)
        if ready - perf < needed and not calm and not full:
            draft.wait(
                "busy",
                worker.launch_id,
                f"update {machine(worker, draft.perfs)}: {load(needed)} are needed and {load(ready - perf)} would"
                " stay ready; it waits for more capacity or for calm",
            )
            return
        revision = draft.groups[worker.workergroup_id].revision
        reason = (
            f"drain {machine(worker, draft.perfs)} to update it from revision {worker.revision} to {revision}:"
            f" {load(ready - perf)} stay ready, {load(needed)} needed"
        )
        draft.drain(worker, Goal.UPDATE, reason)
        ready, at_once = ready - perf, at_once - 1
