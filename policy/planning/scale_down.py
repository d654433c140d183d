"""Less capacity: worst price-performance first, drained before it is stopped, and only what was not needed for a while."""

from collections import Counter
from collections.abc import Callable

from policy.capacity.exact_sum import billionths
from policy.capacity.limits import workers_min
from policy.capacity.supply import takes_requests
from policy.planning.drain import bound_drains, dismiss, let_go
from policy.planning.placement import price_performance
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_cold, is_hot
from policy.state.plan import Destroy, Stop
from policy.state.worker import Goal, Worker
from policy.wording import duration, load, machine, price
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup


def release_order(draft: PlanBuilder, worker: Worker) -> tuple[bool, float, str]:
    """Who goes first: an outdated revision, then the worst price-performance."""
    group = draft.groups.get(worker.workergroup_id)
    current = group is not None and worker.revision >= group.revision
    return (current, price_performance(worker, draft.perfs), worker.launch_id)


def shrink_hot(draft: PlanBuilder, keep: float, why: str) -> None:
    """Drain ready workers while `keep` load/s, with a margin, stay ready without them."""
    ready = [worker for worker in draft if takes_requests(worker)]
    left = sum([draft.perfs.worker(worker) for worker in ready])
    if not _any_to_spare(draft, ready, left, keep):
        return
    floors = _GroupFloors(draft, takes_requests)
    for worker in sorted(ready, key=lambda each: release_order(draft, each)):
        perf = draft.perfs.worker(worker)
        if not draft.free(worker) or not _enough(left - perf, keep, draft.tuning.scale_down_margin):
            continue
        if not floors.keep_hot_without(worker):
            continue
        floors.leaves(worker)
        left -= perf
        reason = f"{why}, {load(left)} stay ready: drain {machine(worker, draft.perfs)}"
        draft.drain(worker, Goal.STOP, reason, until_idle=True)


def shrink_total(draft: PlanBuilder, keep: float, why: str) -> None:
    """Release cold workers while `keep` load/s, hot and cold, and the floors in number stay."""
    there = draft.have()
    total, count = there.total, there.keepable
    floor = workers_min(draft.observation)
    cold = [worker for worker in draft if worker.state in (S.INACTIVE, S.CREATED)]
    if all(worker.loaded_once for worker in cold) and not _any_to_spare(draft, cold, total, keep):
        return
    floors = _GroupFloors(draft, _loaded_or_loading)
    for worker in sorted(cold, key=lambda each: (each.loaded_once, release_order(draft, each))):
        if not draft.free(worker):
            continue
        perf = draft.perfs.worker(worker) if worker.loaded_once else 0.0
        if not _enough(total - perf, keep, draft.tuning.scale_down_margin) and perf > 0:
            continue
        if worker.loaded_once and (count <= floor or not floors.keep_cold_without(worker)):
            continue
        if not worker.loaded_once and count < floor:
            continue
        total, count = total - perf, count - worker.loaded_once
        if worker.loaded_once:
            floors.leaves(worker)
        rest = duration(draft.now - worker.since)
        reason = (
            f"{why}, {load(total)} and {count} worker(s) stay:"
            f" release {machine(worker, draft.perfs)}, cold for {rest}"
        )
        draft.order(Destroy(launch_id=worker.launch_id, reason=reason))


def obey_max_workers(draft: PlanBuilder) -> None:
    """After max_workers was lowered: release the surplus, the least useful first."""
    _release_surplus(draft, list(draft), draft.config.max_workers, "max_workers")
    for group in draft.groups.values():
        if group.max_workers is not None:
            mine = [worker for worker in draft if worker.workergroup_id == group.id]
            _release_surplus(draft, mine, group.max_workers, f"max_workers of workergroup {group.id}")


def obey_budget(draft: PlanBuilder) -> None:
    """After the budget was lowered, or prices rose: stop running the worst until what stays is within it."""
    budget, purse = draft.config.dollars_per_hour_max, draft.purse
    if budget is None or purse is None:
        return
    if purse.left < 0:
        bound_drains(draft, f"running all costs more than the budget of {price(budget)}")
    if purse.left_after_drains >= 0:
        return
    running = [
        worker
        for worker in draft
        if draft.free(worker)
        and (
            (is_booting(worker) and worker.state is not S.PENDING)
            or (is_hot(worker) and worker.drain is None)
        )
    ]
    left = purse.left_after_drains + sum(_running_dollars(worker) for worker in running)
    stopped = []
    best_first = sorted(running, key=lambda each: release_order(draft, each), reverse=True)
    for worker in sorted(best_first, key=is_booting):
        if _running_dollars(worker) <= left:
            left -= _running_dollars(worker)
            continue
        reason = f"running all would cost more than the budget of {price(budget)}"
        if is_hot(worker):
            let_go(draft, worker, Goal.STOP, reason)
        else:
            name = machine(worker, draft.perfs)
            draft.order(Stop(launch_id=worker.launch_id, reason=f"stop {name}: {reason}"))
            stopped.append(worker)
    for worker in stopped:
        _avoid_if_dearer_than_offered(draft, worker, left)


def _avoid_if_dearer_than_offered(draft: PlanBuilder, worker: Worker, left: float) -> None:
    """Its offer promises to fit into what is left, and it does not: rented again it would be stopped again."""
    cost, offered = worker.dollars_per_hour, worker.offered_dollars_per_hour
    if not worker.loaded_once and offered and offered - worker.storage_dollars_per_hour <= left:
        reason = f"it costs {price(cost)} and its offer said {price(offered)}: that is beyond the budget"
        draft.avoid_host(worker, reason)


def _running_dollars(worker: Worker) -> float:
    """What it saves to stop it."""
    return worker.dollars_per_hour - worker.storage_dollars_per_hour


def _release_surplus(draft: PlanBuilder, workers: list[Worker], cap: int, name: str) -> None:
    staying = [worker for worker in workers if worker.state is not S.DESTROYING]
    staying = [worker for worker in staying if worker.drain is None or worker.drain.goal is not Goal.DESTROY]
    surplus = len(staying) - cap
    if surplus <= 0:
        return
    rank = {S.CREATED: 0, S.ERROR: 0, S.PENDING: 1, S.CREATING: 1, S.LOADING: 1, S.MODEL_LOADING: 1}
    order = sorted(
        staying,
        key=lambda each: (
            3 if is_hot(each) else 2 if is_cold(each) else rank.get(each.state, 1),
            release_order(draft, each),
        ),
    )
    for worker in order:
        if surplus <= 0:
            return
        if draft.free(worker):
            dismiss(draft, worker, f"{name} is {cap}, {len(staying)} exist")
            surplus -= 1


def _any_to_spare(draft: PlanBuilder, workers: list[Worker], total: float, keep: float) -> bool:
    """Whether a closer look is worth it: without even the smallest of them there is too little. Most looks end here."""
    smallest = min((draft.perfs.worker(worker) for worker in workers), default=0.0)
    cooling = any(worker.retry_at > draft.now for worker in workers)
    return cooling or smallest <= 0 or _enough(total - smallest, keep, draft.tuning.scale_down_margin)


def _enough(left: float, keep: float, margin: float) -> bool:
    return keep <= 0 or left >= keep * (1 + margin)


class _GroupFloors:
    """What each workergroup has beyond its own floors, as its workers leave one by one."""

    def __init__(self, draft: PlanBuilder, counts: Callable[[Worker], bool]) -> None:
        self._draft = draft
        self._members: Counter[int] = Counter()
        self._perf: Counter[int] = Counter()
        for worker in draft if any(map(_has_floor, draft.groups.values())) else ():
            if counts(worker):
                self._members[worker.workergroup_id] += 1
                self._perf[worker.workergroup_id] += self._billionths(worker)

    def keep_hot_without(self, worker: Worker) -> bool:
        """Whether the workergroup's min_load is kept by those that count, without this one of them."""
        group = self._draft.groups.get(worker.workergroup_id)
        return group is None or not group.min_load or self._perf_without(worker) >= billionths(group.min_load)

    def keep_cold_without(self, worker: Worker) -> bool:
        """Whether the workergroup's cold_workers and min_cold_load are."""
        group = self._draft.groups.get(worker.workergroup_id)
        if group is None:
            return True
        if group.cold_workers and self._members[group.id] <= group.cold_workers:
            return False
        return not group.min_cold_load or self._perf_without(worker) >= billionths(group.min_cold_load)

    def leaves(self, worker: Worker) -> None:
        """One of those that count goes."""
        self._members[worker.workergroup_id] -= 1
        self._perf[worker.workergroup_id] -= self._billionths(worker)

    def _perf_without(self, worker: Worker) -> int:
        return self._perf[worker.workergroup_id] - self._billionths(worker)

    def _billionths(self, worker: Worker) -> int:
        return billionths(self._draft.perfs.worker(worker))


def _has_floor(group: Workergroup) -> bool:
    return bool(group.min_load or group.cold_workers or group.min_cold_load)


def _loaded_or_loading(worker: Worker) -> bool:
    return worker.state is not S.DESTROYING and (worker.loaded_once or is_booting(worker))
