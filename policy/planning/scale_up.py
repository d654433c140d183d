"""More capacity, fastest and cheapest first: cancel drains, start cold workers, rent offers."""

import math
from bisect import insort
from collections.abc import Iterable

from policy.capacity.performance import LOAD_EPSILON
from policy.planning.placement import price_performance
from policy.planning.plan_builder import PlanBuilder
from policy.planning.recruit import recruit
from policy.state.lifecycle import is_hot
from policy.state.operator_actions import is_held
from policy.state.worker import Goal, Worker
from policy.wording import Reason, capacity, machine
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup


def scale_up(
    builder: PlanBuilder,
    need: float,
    why: Reason,
    groups: Iterable[Workergroup] | None = None,
    *,
    rent_max: float = math.inf,
) -> None:
    """Order `need` load/s more hot capacity, of which at most `rent_max` on new machines."""
    allowed = tuple(builder.groups.values()) if groups is None else tuple(groups)
    ids = {group.id for group in allowed}
    left = _cancel_drains(builder, need, why, ids)
    left = _start_cold_workers(builder, left, why, ids)
    need = min(left, rent_max - (need - left))
    if need > LOAD_EPSILON / 2:
        recruit(builder, need=need, count=0, why=why, groups=allowed)


def _cancel_drains(builder: PlanBuilder, need: float, why: Reason, ids: set[int]) -> float:
    """Cancel drains until `need` load/s is met; returns what is still needed."""
    draining = [
        worker
        for worker in builder
        if is_hot(worker)
        and worker.drain is not None
        and worker.drain.goal is Goal.STOP
        and not is_held(worker)
        and worker.suspect_since is None
        and worker.workergroup_id in ids
        and builder.is_free(worker)
    ]
    # The requests that a worker holds keep their share of its perf: only the rest becomes available.
    target, budget = builder.config.target_queue_time, builder.budget
    available = {each.launch_id: builder.perfs.worker(each) - each.load / target for each in draining}
    for worker in sorted(draining, key=lambda each: -price_performance(each, builder.perfs)):
        if need <= 0:
            break
        gain = available[worker.launch_id]
        if gain <= 0:
            continue
        cost, storage = worker.dollars_per_hour, worker.storage_dollars_per_hour
        if budget is not None and not budget.affords(cost, instead_of=storage, after_drains=True):
            builder.wait_for_budget(why)
            continue
        builder.cancel_drain(worker, why.also(f"{machine(worker)} keeps {capacity(gain)}"))
        need -= gain
    return need


def _start_cold_workers(builder: PlanBuilder, need: float, why: Reason, ids: set[int]) -> float:
    """Start cold workers until `need` load/s is met; returns what is still needed.

    Workers that will be cold in a moment count as well: they are started by a later plan.
    """
    cold = [
        worker
        for worker in builder
        if worker.workergroup_id in ids
        and worker.state in (S.INACTIVE, S.CREATED)
        and can_start(builder, worker)
    ]
    ranked = sorted((_value(builder, worker, need), worker.launch_id, worker) for worker in cold)
    while need > 0 and ranked:
        value, launch_id, best = ranked.pop()
        if (now := _value(builder, best, need)) < value:
            insort(ranked, (now, launch_id, best))  # the need fell since the sort, so others may be better
        elif start(builder, best, why):
            need -= builder.perfs.worker(best) or math.inf
    for worker in builder:
        if (
            need > 0
            and worker.loaded_once
            and worker.workergroup_id in ids
            and _is_soon_cold(builder, worker)
        ):
            builder.wait("booting", worker.launch_id, f"{machine(worker)} can start once it has stopped")
            need -= builder.perfs.worker(worker) or math.inf
    return need


def _is_soon_cold(builder: PlanBuilder, worker: Worker) -> bool:
    """Whether a worker can be started in a moment. A stop that takes longer does not count: the host may be offline."""
    if is_held(worker):
        return False
    if worker.state is S.STOPPING:
        return builder.now - worker.since < builder.tuning.stop_retry_seconds
    return worker.state is S.INACTIVE and worker.operation != ""


def start(builder: PlanBuilder, worker: Worker, why: Reason) -> bool:
    """Start a cold worker; False: the budget does not allow it."""
    if not builder.affords(worker.dollars_per_hour, instead_of=worker.burn_dollars_per_hour):
        builder.wait_for_budget(why)
        return False
    adds = capacity(builder.perfs.worker(worker))
    builder.activate(
        worker, why.also(f"{machine(worker)} adds {adds}", cold_seconds=builder.now - worker.since)
    )
    return True


def can_start(builder: PlanBuilder, worker: Worker) -> bool:
    """Whether a worker can be started now: no operation runs, and the pause after a given-up start is over.

    A worker that an operator drained is not started.
    """
    if is_held(worker) or not builder.is_free(worker):
        return False
    again = worker.since + worker.starts_given_up * builder.tuning.start_retry_seconds
    if again > builder.now:
        builder.wakes.append(again)
    return again <= builder.now


def _value(builder: PlanBuilder, worker: Worker, need: float) -> float:
    """Price-performance of the part that is needed; outdated revisions come last."""
    value = min(builder.perfs.worker(worker), need) / max(worker.dollars_per_hour, 1e-6)
    return value - (1e9 if builder.is_outdated(worker) else 0.0)
