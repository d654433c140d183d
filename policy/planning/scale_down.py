"""Less capacity: the lowest price-performance first, and only what was not needed for a while."""

from collections import Counter
from collections.abc import Iterable

from policy.capacity.exact_sum import billionths
from policy.capacity.limits import workers_min
from policy.capacity.performance import LOAD_EPSILON
from policy.capacity.supply import takes_requests
from policy.planning.drain import release, retire, set_drain_deadlines
from policy.planning.placement import price_performance
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_cold, is_hot
from policy.state.operator_actions import is_held
from policy.state.worker import Goal, Worker
from policy.wording import Reason, count, duration, load, machine, price
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup

_NOT_READY_RANK = {S.CREATED: 0, S.ERROR: 0}
"""Surplus workers that never loaded or are broken go before those that boot (1), cold ones (2) and hot ones (3)."""


def release_order(builder: PlanBuilder, worker: Worker) -> tuple[bool, float, str]:
    """Sort key: outdated revisions first, then the lowest price-performance."""
    group = builder.groups.get(worker.workergroup_id)
    current = group is not None and worker.revision >= group.revision
    return (current, price_performance(worker, builder.perfs), worker.launch_id)


def drain_surplus(builder: PlanBuilder, keep: float, why: Reason) -> None:
    """Drain ready workers as long as `keep` load/s, with a margin, stay ready without them."""
    ready = [worker for worker in builder if takes_requests(worker)]
    left = sum([builder.perfs.worker(worker) for worker in ready])
    if not _has_surplus(builder, ready, left, keep):
        return
    floors = _GroupFloors(builder, ready)
    for worker in sorted(ready, key=lambda each: release_order(builder, each)):
        perf = builder.perfs.worker(worker)
        if not builder.is_free(worker) or not _covers(left - perf, keep, builder.tuning.scale_down_margin):
            continue
        if not floors.keep_hot_without(worker):
            continue
        if builder.grew_recently():
            return
        floors.remove(worker)
        left -= perf
        # Over budget, a drain has a deadline.
        fits = builder.budget is None or builder.budget.left >= 0
        builder.drain(worker, Goal.STOP, _surplus(worker, why, left), cause=why.text, until_idle=fits)


def _surplus(worker: Worker, why: Reason, left: float) -> Reason:
    if left < LOAD_EPSILON:
        return why.also("scaling to zero", ready_after=0.0)
    return why.also(f"{load(left)} ready without {machine(worker)}", ready_after=left)


def release_surplus(builder: PlanBuilder, keep: float, why: Reason) -> None:
    """Release cold workers as long as `keep` load/s, hot and cold, and the minimum number of workers stay."""
    supply = builder.supply()
    total, workers = supply.total, supply.keepable
    floor = workers_min(builder.observation)
    cold = [worker for worker in builder if worker.state in (S.INACTIVE, S.CREATED) and not is_held(worker)]
    if all(worker.loaded_once for worker in cold) and not _has_surplus(builder, cold, total, keep):
        return
    floors = _GroupFloors(builder, filter(_has_loaded_or_boots, builder))
    for worker in sorted(cold, key=lambda each: (each.loaded_once, release_order(builder, each))):
        if not builder.is_free(worker):
            continue
        perf = builder.perfs.worker(worker) if worker.loaded_once else 0.0
        if not _covers(total - perf, keep, builder.tuning.scale_down_margin) and perf > 0:
            continue
        if worker.loaded_once and (workers <= floor or not floors.keep_cold_without(worker)):
            continue
        if not worker.loaded_once and workers < floor:
            continue
        total, workers = total - perf, workers - worker.loaded_once
        if worker.loaded_once:
            floors.remove(worker)
        cold_for = builder.now - worker.since
        stays = f"{load(total)} and {count(workers, 'worker')} stay without {machine(worker)}"
        more = {"total_after": total, "workers_after": workers, "cold_seconds": cold_for}
        builder.destroy(worker, why.also(f"{stays}, cold for {duration(cold_for)}", **more))


def enforce_max_workers(builder: PlanBuilder) -> None:
    """Release workers beyond max_workers of the endpoint and of its workergroups, the least useful first."""
    _enforce_cap(builder, list(builder), builder.config.max_workers, "max_workers")
    for group in builder.groups.values():
        if group.max_workers is not None:
            members = [worker for worker in builder if worker.workergroup_id == group.id]
            _enforce_cap(builder, members, group.max_workers, f"max_workers of workergroup {group.id}")


def enforce_budget(builder: PlanBuilder) -> None:
    """Stop running workers, the least useful first, until the others fit the budget."""
    limit, budget = builder.config.dollars_per_hour_max, builder.budget
    if limit is None or budget is None:
        return
    running_cost = limit - budget.left
    why = Reason(
        f"over budget; all workers running cost {price(running_cost)}, the budget is {price(limit)}",
        {"running_dollars_per_hour": running_cost, "budget_dollars_per_hour": limit},
    )
    if budget.left < 0:
        set_drain_deadlines(builder, why)
    if budget.left_after_drains >= 0:
        return
    running = [
        worker
        for worker in builder
        if builder.is_free(worker)
        and (
            (is_booting(worker) and worker.state is not S.PENDING)
            or (is_hot(worker) and worker.drain is None)
        )
    ]
    left = budget.left_after_drains + sum(_stop_saves(worker) for worker in running)
    stopped = []
    best_first = sorted(running, key=lambda each: release_order(builder, each), reverse=True)
    for worker in sorted(best_first, key=is_booting):
        if _stop_saves(worker) <= left:
            left -= _stop_saves(worker)
            continue
        if is_hot(worker):
            retire(builder, worker, Goal.STOP, why)
        else:
            builder.stop(worker, why)
            stopped.append(worker)
    for worker in stopped:
        _avoid_if_dearer_than_offered(builder, worker, left)


def _avoid_if_dearer_than_offered(builder: PlanBuilder, worker: Worker, left: float) -> None:
    """Block a host whose real price is over budget although its offer fits: it would be rented and stopped again."""
    cost, offered = worker.dollars_per_hour, worker.offered_dollars_per_hour
    if not worker.loaded_once and offered and offered - worker.storage_dollars_per_hour <= left:
        builder.avoid_host(worker, f"it costs {price(cost)}, offered for {price(offered)}; over budget")


def _stop_saves(worker: Worker) -> float:
    """$/h that a stop saves."""
    return worker.dollars_per_hour - worker.storage_dollars_per_hour


def _enforce_cap(builder: PlanBuilder, workers: list[Worker], cap: int, name: str) -> None:
    staying = [worker for worker in workers if worker.state is not S.DESTROYING]
    staying = [worker for worker in staying if worker.drain is None or worker.drain.goal is not Goal.DESTROY]
    surplus = len(staying) - cap
    if surplus <= 0:
        return
    why = Reason(
        f"{name} exceeded; {count(len(staying), 'worker')} exist, the limit is {cap}",
        {"workers": len(staying), "max_workers": cap},
    )
    order = sorted(
        staying,
        key=lambda each: (
            3 if is_hot(each) else 2 if is_cold(each) else _NOT_READY_RANK.get(each.state, 1),
            release_order(builder, each),
        ),
    )
    for worker in order:
        if surplus <= 0:
            return
        if builder.is_free(worker):
            release(builder, worker, why)
            surplus -= 1


def _has_surplus(builder: PlanBuilder, workers: list[Worker], total: float, keep: float) -> bool:
    """A cheap test before the full one: whether the smallest of the workers can go at all."""
    smallest = min((builder.perfs.worker(worker) for worker in workers), default=0.0)
    pausing = any(worker.retry_at > builder.now for worker in workers)
    return pausing or smallest <= 0 or _covers(total - smallest, keep, builder.tuning.scale_down_margin)


def _covers(left: float, keep: float, margin: float) -> bool:
    return keep <= 0 or left >= keep * (1 + margin)


class _GroupFloors:
    """Workers and perf of each workergroup that has floors, as workers are removed one by one."""

    def __init__(self, builder: PlanBuilder, workers: Iterable[Worker]) -> None:
        self._builder = builder
        self._members: Counter[int] = Counter()
        self._perf: Counter[int] = Counter()
        if any(map(_has_floor, builder.groups.values())):
            for worker in workers:
                self._add(worker, 1)

    def keep_hot_without(self, worker: Worker) -> bool:
        """Whether the workergroup keeps its min_load without this worker."""
        group = self._builder.groups.get(worker.workergroup_id)
        return group is None or not group.min_load or self._perf_without(worker) >= billionths(group.min_load)

    def keep_cold_without(self, worker: Worker) -> bool:
        """Whether the workergroup keeps its cold_workers and min_cold_load without this worker."""
        group = self._builder.groups.get(worker.workergroup_id)
        if group is None:
            return True
        if group.cold_workers and self._members[group.id] <= group.cold_workers:
            return False
        return not group.min_cold_load or self._perf_without(worker) >= billionths(group.min_cold_load)

    def remove(self, worker: Worker) -> None:
        """Subtract a worker."""
        self._add(worker, -1)

    def _add(self, worker: Worker, sign: int) -> None:
        self._members[worker.workergroup_id] += sign
        self._perf[worker.workergroup_id] += sign * self._billionths(worker)

    def _perf_without(self, worker: Worker) -> int:
        return self._perf[worker.workergroup_id] - self._billionths(worker)

    def _billionths(self, worker: Worker) -> int:
        return billionths(self._builder.perfs.worker(worker))


def _has_floor(group: Workergroup) -> bool:
    return bool(group.min_load or group.cold_workers or group.min_cold_load)


def _has_loaded_or_boots(worker: Worker) -> bool:
    stays = worker.state is not S.DESTROYING and not is_held(worker)
    return stays and (worker.loaded_once or is_booting(worker))
