"""From an observation to a plan: what to do, why, and what is waited for.

The order is the story: what leaves, what is broken, what is outdated, what is missing, what is too much. Every step works
on the fleet as the steps before leave it, so a plan never contradicts itself, and planning on its result changes nothing.
"""

from collections.abc import Iterable

from policy.capacity.demand import is_known_idle, is_past_inactivity_timeout
from policy.capacity.limits import workers_min
from policy.capacity.performance import LOAD_EPSILON
from policy.keepalive.evaluation import last_worker_kept_until, peak_demand_since
from policy.load.peaks import held_level, next_release, update_peaks
from policy.load.seasonality import next_rise
from policy.planning.drain import (
    delete_all,
    dismiss_orphans,
    finish_drains,
    keep_all,
    release_again,
    stop_all,
)
from policy.planning.plan_builder import PlanBuilder
from policy.planning.polling import explain_booting, look
from policy.planning.recruit import recruit
from policy.planning.repair import repair
from policy.planning.rolling_update import surge, update_idle, update_ready
from policy.planning.scale_down import obey_budget, obey_max_workers, shrink_hot, shrink_total
from policy.planning.scale_up import activate, can_start, grow_hot
from policy.state.observation import Observation
from policy.state.plan import QUEUE_SECONDS_MAX, Plan, Targets
from policy.tuning import DEFAULT_TUNING, Tuning
from policy.wording import load
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup

_GROWTH = frozenset({"cancel_drain", "activate", "recruit"})


def plan(observation: Observation, tuning: Tuning = DEFAULT_TUNING) -> Plan:
    """Decide everything that is to be done now. Pure: the same observation gives the same plan."""
    draft = PlanBuilder(observation, tuning)
    _remember_wants(draft)
    finish_drains(draft)
    if observation.deleting:
        delete_all(draft)
        release_again(draft)
    else:
        dismiss_orphans(draft)
        repair(draft)
        match observation.config.endpoint_state:
            case EndpointState.STOPPED:
                stop_all(draft)
            case EndpointState.SUSPENDED:
                keep_all(draft)
            case EndpointState.ACTIVE:
                scale(draft)
    explain_booting(draft)
    look(draft)
    return _finish(draft)


def scale(draft: PlanBuilder) -> None:
    """Bring the fleet to what the parameters ask for under this load."""
    obey_max_workers(draft)
    obey_budget(draft)
    update_idle(draft)
    _grow(draft)
    update_ready(draft, draft.want.hot)
    sure = draft.forecast.settled or is_past_inactivity_timeout(draft.observation, draft.forecast)
    if draft.want.over_target:
        return
    if sure:
        _shrink_hot(draft)
    if sure or is_known_idle(draft.observation, draft.tuning):
        _shrink_total(draft)


def _grow(draft: PlanBuilder) -> None:
    want, extra = draft.want, surge(draft)
    have = draft.have()
    wanted = want.hot + extra
    gap = 0.0 if have.unknown_booting else wanted - have.hot
    before = len(draft.operations)
    if gap > LOAD_EPSILON / 2:
        since = draft.memory.above_since if draft.memory.above_since is not None else draft.now
        draft.with_memory(above_since=since)
        if _is_urgent(draft, gap) or draft.now - since >= draft.tuning.scale_up_hold_seconds:
            grow_hot(
                draft, gap, _why_more(draft, wanted, have.hot, extra), rent=want.rented + extra - have.hot
            )
        else:
            draft.wakes.append(since + draft.tuning.scale_up_hold_seconds)
    elif draft.memory.above_since is not None:
        draft.with_memory(above_since=None)
    _overtake(draft)
    _grow_groups(draft)
    if any(each.op in _GROWTH for each in draft.operations[before:]):
        draft.with_memory(grew_at=draft.now)
    _grow_total(draft)


def _overtake(draft: PlanBuilder) -> None:
    """Wake cold workers for what is wanted now, where machines that boot would come minutes later.

    A rolling update can wait for them.
    """
    have, wanted = draft.have(), draft.want.hot
    need = wanted - (have.hot - have.overtaken)
    if need > LOAD_EPSILON / 2 and have.overtaken > 0 and have.cold > 0 and _is_urgent(draft, need):
        why = _why_more(draft, wanted, have.hot - have.overtaken, 0.0)
        grow_hot(
            draft, need, f"{why}, {load(have.overtaken)} of it boots for longer than a start takes", rent=0.0
        )


def _is_urgent(draft: PlanBuilder, gap: float) -> bool:
    """A queue, a burst, a floor, or more than jitter: at once."""
    have = draft.have().hot
    below_floor = have < draft.want.hot_floor
    return (
        draft.want.over_target
        or draft.forecast.burst
        or have <= 0
        or below_floor
        or gap > have * draft.tuning.scale_up_tolerance
    )


def _why_more(draft: PlanBuilder, wanted: float, hot: float, extra: float) -> str:
    if extra:
        return f"rolling update: {load(extra)} on top of {load(draft.want.hot)} over {load(hot)} hot"
    want, util = draft.want, draft.rules.target_util
    if want.predicted / util < want.hot_floor:
        return f"at least {load(want.hot_floor)} are kept hot, {load(hot)} are"
    because = [f"target_util {util:g}"] if util < 1 else []
    because += [draft.keep.reason] if draft.keep.reason else []
    spare = f" ({load(wanted)} at {', '.join(because)})" if because else ""
    queue = ""
    if want.over_target:
        waits = (
            "nobody to clear it" if want.queue_seconds >= QUEUE_SECONDS_MAX else f"{want.queue_seconds:.0f} s"
        )
        queue = f"queue {waits}, target {draft.config.target_queue_time:g} s: "
    return f"{queue}predicted {load(want.predicted)}{spare} over {load(hot)} hot"


def _grow_groups(draft: PlanBuilder) -> None:
    """The floors of single workergroups."""
    for group in draft.groups.values():
        if not (group.min_load or group.cold_workers or group.min_cold_load):
            continue
        mine = [worker for worker in draft if worker.workergroup_id == group.id]
        there = draft.have_of(mine)
        if group.min_load and not there.unknown_booting and there.hot < group.min_load:
            why = f"min_load of workergroup {group.id} is {load(group.min_load)}, {load(there.hot)} hot"
            grow_hot(draft, group.min_load - there.hot, why, [group])
            there = draft.have_of(worker for worker in draft if worker.workergroup_id == group.id)
        missing = (group.cold_workers or 0) - there.keepable
        need = 0.0 if there.unknown_booting else (group.min_cold_load or 0.0) - there.total
        if missing > 0 or need > LOAD_EPSILON:
            why = f"workergroup {group.id} keeps {group.cold_workers or 0} worker(s) and {load(group.min_cold_load or 0)}"
            _load_once(draft, need=need, count=missing, why=why, groups=[group])


def _grow_total(draft: PlanBuilder) -> None:
    """The cold pool: workers that load once, then wait on disk."""
    there = draft.have()
    floor = workers_min(draft.observation)
    missing = floor - there.keepable
    need = 0.0 if there.unknown_booting else draft.want.total - there.total
    if missing > 0:
        why = f"min_workers {floor}, {there.keepable} loaded or booting"
    elif need > draft.want.total * draft.tuning.scale_up_tolerance:
        why = f"{load(draft.want.total)} hot and cold wanted, {load(there.total)} there"
    else:
        return
    _load_once(draft, need=need, count=missing, why=why, groups=draft.groups.values())


def _load_once(
    draft: PlanBuilder, *, need: float, count: int, why: str, groups: Iterable[Workergroup]
) -> None:
    """Let `need` load/s and `count` workers load that have not: first those that were stopped before, then new ones."""
    allowed = {group.id: group for group in groups}
    for worker in draft:
        if count <= 0 and need <= 0:
            return
        stopped = worker.state is WorkerState.CREATED and worker.workergroup_id in allowed
        if stopped and can_start(draft, worker) and activate(draft, worker, why):
            count -= 1
            need -= draft.perfs.worker(worker) or need
    if count > 0 or need > LOAD_EPSILON:
        recruit(draft, need=max(need, 0.0), count=max(count, 0), why=why, groups=allowed.values())


def _held_hot(draft: PlanBuilder) -> float:
    want, level = draft.want, draft.keep.level(draft.memory.hot_peaks, draft.now)
    last = LOAD_EPSILON if _last_is_kept_until(draft) > draft.now else 0.0
    return max(level / draft.rules.target_util, want.hot_floor, want.clearing, last)


def _last_is_kept_until(draft: PlanBuilder) -> float:
    """By experience; 0: it is let go like the others."""
    if not draft.keep.keep_last_worker or is_past_inactivity_timeout(draft.observation, draft.forecast):
        return 0.0
    return last_worker_kept_until(draft.keepalive)


def _shrink_hot(draft: PlanBuilder) -> None:
    grew_at, hold = draft.memory.grew_at, draft.tuning.scale_down_cooldown_seconds
    if (
        grew_at is not None
        and draft.now - grew_at < hold
        and not is_past_inactivity_timeout(draft.observation, draft.forecast)
    ):
        if draft.have().ready > _held_hot(draft):
            draft.wakes.append(grew_at + hold)
        return
    hot = _held_hot(draft)
    spare = f" with {draft.keep.reason}" if draft.keep.reason else ""
    why = f"{load(draft.want.hot)} hot wanted, {load(hot)} held{spare}"
    shrink_hot(draft, hot + surge(draft), why)


def _shrink_total(draft: PlanBuilder) -> None:
    want = draft.want
    slow = max(
        held_level(draft.memory.total_peaks, draft.now, draft.tuning.total_hold_seconds)
        / draft.rules.target_util,
        want.hot_floor * draft.rules.cold_mult,
    )
    total = max(_held_hot(draft), slow, want.total, draft.config.min_cold_load)
    why = f"{load(want.total)} hot and cold wanted, {load(total)} held"
    shrink_total(draft, total + surge(draft), why)


def _remember_wants(draft: PlanBuilder) -> None:
    """Hysteresis: what was wanted lately, so that a lull does not cost a start."""
    tuning, want, memory = draft.tuning, draft.want, draft.memory
    hold = draft.keep.longest_seconds
    # what was needed for a moment counts, whether or not a plan was made in it
    needed = peak_demand_since(draft.keepalive, draft.now - tuning.demand_hold_seconds)
    hot = update_peaks(memory.hot_peaks, max(want.arrivals, needed), draft.now, hold)
    # what was hot once is worth its disk for as long as the disk costs less than the boot that it saves
    pool = max(want.sustained * draft.rules.cold_mult, want.predicted)
    total = update_peaks(memory.total_peaks, pool, draft.now, tuning.total_hold_seconds)
    if draft.observation.memory is None:
        # without a memory the present scale is what was wanted until now: a planner that has just begun cuts nothing
        there, util = draft.have(), draft.rules.target_util
        hot = update_peaks(((draft.now, there.ready * util),), want.arrivals, draft.now, hold)
        total = update_peaks(((draft.now, there.total * util),), pool, draft.now, tuning.total_hold_seconds)
    if is_past_inactivity_timeout(draft.observation, draft.forecast):
        # the user said how long a pause is the end of the work: no hold on top of it
        hot = ((draft.now, want.arrivals),)
    ready = draft.have().ready
    below = want.hot < ready
    cold_below = want.total < draft.have().total
    draft.with_memory(
        hot_peaks=hot,
        total_peaks=total,
        keepalive=draft.keepalive,
        below_since=(memory.below_since if memory.below_since is not None else draft.now) if below else None,
        cold_below_since=(memory.cold_below_since if memory.cold_below_since is not None else draft.now)
        if cold_below
        else None,
    )
    lead = draft.seasonal_lead_seconds
    if (
        draft.keep.seasonal
        and (rise := next_rise(draft.keepalive.minute_peaks, draft.now, lead, tuning)) is not None
    ):
        draft.wakes.append(rise)
    for due in (
        next_release(hot, draft.now, draft.keep.seconds),
        next_release(hot, draft.now, draft.keep.tail_seconds),
        next_release(total, draft.now, tuning.total_hold_seconds),
        _last_is_kept_until(draft),
    ):
        if due:
            draft.wakes.append(due)
    timeout, last = draft.config.inactivity_timeout, draft.observation.load.last_request_at
    if timeout and timeout > 0 and last is not None:
        draft.wakes.append(last + timeout)


def _finish(draft: PlanBuilder) -> Plan:
    have, want = draft.have(), draft.want
    targets = Targets(
        predicted_load=want.predicted,
        hot_wanted=want.hot,
        hot_ready=have.ready,
        hot_booting=have.booting,
        total_wanted=want.total,
        total_have=have.total,
        workers_wanted_min=workers_min(draft.observation),
        queue_seconds=min(want.queue_seconds, QUEUE_SECONDS_MAX),
        dollars_per_hour=sum([worker.burn_dollars_per_hour for worker in draft.observation.workers]),
        reason=want.reason,
    )
    return Plan(
        operations=tuple(draft.operations),
        targets=targets,
        waits=tuple(draft.waits),
        replan_at=draft.replan_at,
        memory=draft.memory,
        failed_hosts=tuple(draft.failed_hosts),
    )
