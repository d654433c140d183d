"""More capacity: call off a drain, wake a cold worker, rent an offer, in this order of speed and price."""

from bisect import insort
from collections.abc import Iterable

from policy.capacity.performance import LOAD_EPSILON
from policy.planning.placement import price_performance
from policy.planning.plan_builder import PlanBuilder
from policy.planning.recruit import recruit
from policy.state.lifecycle import is_hot
from policy.state.plan import Activate, CancelDrain
from policy.state.worker import Goal, Worker
from policy.wording import duration, machine
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup

_EVERYTHING = float("inf")


def grow_hot(
    draft: PlanBuilder,
    need: float,
    why: str,
    groups: Iterable[Workergroup] | None = None,
    *,
    rent: float = _EVERYTHING,
) -> None:
    """Bring `need` load/s more towards hot, of which at most `rent` on new machines."""
    allowed = tuple(draft.groups.values()) if groups is None else tuple(groups)
    ids = {group.id for group in allowed}
    left = _call_off_drains(draft, need, why, ids)
    left = _activate(draft, left, why, ids)
    need = min(left, rent - (need - left))
    if need > LOAD_EPSILON / 2:
        recruit(draft, need=need, count=0, why=why, groups=allowed)


def _call_off_drains(draft: PlanBuilder, need: float, why: str, ids: set[int]) -> float:
    draining = [
        worker
        for worker in draft
        if is_hot(worker)
        and worker.drain is not None
        and worker.drain.goal is Goal.STOP
        and worker.suspect_since is None
        and worker.workergroup_id in ids
        and draft.free(worker)
    ]
    # what it holds still takes its share: the rest of its perf is what comes back into service
    target, purse = draft.config.target_queue_time, draft.purse
    free = {each.launch_id: draft.perfs.worker(each) - each.load / target for each in draining}
    for worker in sorted(draining, key=lambda each: -price_performance(each, draft.perfs)):
        if need <= 0:
            break
        if free[worker.launch_id] <= 0:
            continue
        name = machine(worker, draft.perfs)
        if purse is not None and not purse.affords_after_drains(
            worker.dollars_per_hour, instead_of=worker.storage_dollars_per_hour
        ):
            draft.wait_for_budget(f"{why}: keep {name}")
            continue
        draft.order(CancelDrain(launch_id=worker.launch_id, reason=f"{why}: keep {name}, it still runs"))
        need -= free[worker.launch_id]
    return need


def _activate(draft: PlanBuilder, need: float, why: str, ids: set[int]) -> float:
    """Wake cold workers; what is still needed afterwards, those not counted that will be cold in a moment."""
    cold = [
        worker
        for worker in draft
        if worker.workergroup_id in ids
        and worker.state in (S.INACTIVE, S.CREATED)
        and can_start(draft, worker)
    ]
    line = sorted((_useful(draft, worker, need), worker.launch_id, worker) for worker in cold)
    while need > 0 and line:
        useful, launch_id, best = line.pop()
        if (now := _useful(draft, best, need)) < useful:
            insort(line, (now, launch_id, best))  # less is needed by now: others may be worth as much
        elif activate(draft, best, why):
            need -= draft.perfs.worker(best) or _EVERYTHING
    for worker in draft:
        if need > 0 and worker.loaded_once and worker.workergroup_id in ids and _soon_cold(draft, worker):
            name = machine(worker, draft.perfs)
            draft.wait("booting", worker.launch_id, f"{name} can be woken once it has stopped")
            need -= draft.perfs.worker(worker) or _EVERYTHING
    return need


def _soon_cold(draft: PlanBuilder, worker: Worker) -> bool:
    """Whether it can be woken in a moment. A host that is offline accepts a stop and carries it out in hours, if ever: once
    the market has to be asked again, another machine is rented beside it."""
    if worker.state is S.STOPPING:
        return draft.now - worker.since < draft.tuning.stop_retry_seconds
    return worker.state is S.INACTIVE and worker.operation != ""


def activate(draft: PlanBuilder, worker: Worker, why: str) -> bool:
    """Start one cold worker if the budget allows."""
    name = machine(worker, draft.perfs)
    if not draft.affords(worker.dollars_per_hour, instead_of=worker.burn_dollars_per_hour):
        draft.wait_for_budget(f"activate {name}")
        return False
    rest = duration(draft.now - worker.since)
    draft.order(Activate(launch_id=worker.launch_id, reason=f"{why}: activate {name}, cold for {rest}"))
    return True


def can_start(draft: PlanBuilder, worker: Worker) -> bool:
    """Whether a start makes sense now: free, and its last start was not given up a moment ago."""
    if not draft.free(worker):
        return False
    again = worker.since + worker.starts_given_up * draft.tuning.start_retry_seconds
    if again > draft.now:
        draft.wakes.append(again)
    return again <= draft.now


def _useful(draft: PlanBuilder, worker: Worker, need: float) -> float:
    """Price-performance, counting only what is needed; those of an older revision last."""
    useful = min(draft.perfs.worker(worker), need) / max(worker.dollars_per_hour, 1e-6)
    return useful - (1e9 if worker.revision < draft.groups[worker.workergroup_id].revision else 0.0)
