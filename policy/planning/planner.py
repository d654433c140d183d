"""From an observation to a plan: what to do, why, and what is waited for.

Each step works on the workers as the steps before leave them, so a plan does not contradict itself, and planning on its
result changes nothing. `docs/explanation/scaling.md` explains the scaling steps one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from policy.capacity.demand import is_known_idle
from policy.capacity.limits import workers_min
from policy.capacity.performance import LOAD_EPSILON
from policy.capacity.supply import Supply
from policy.keepalive.evaluation import peak_demand_since
from policy.load.peaks import held_level, next_release, update_peaks
from policy.load.seasonality import next_rise
from policy.planning.drain import (
    carry_out_actions,
    finish_drains,
    keep_all,
    release_all,
    release_orphans,
    repeat_releases,
    stop_all,
)
from policy.planning.inputs import PlanInputs, gather, with_fleet_left
from policy.planning.plan_builder import PlanBuilder
from policy.planning.polling import explain_booting, list_instances
from policy.planning.recruit import recruit
from policy.planning.repair import repair
from policy.planning.rolling_update import update_idle_workers, update_ready_workers, update_surge
from policy.planning.scale_down import drain_surplus, enforce_budget, enforce_max_workers, release_surplus
from policy.planning.scale_up import can_start, scale_up, start
from policy.state.liveness import mark_unresponsive
from policy.state.observation import Observation
from policy.state.plan import QUEUE_SECONDS_MAX, Plan, Targets
from policy.tuning import DEFAULT_TUNING, Tuning
from policy.wording import Reason, count, duration, figure, load
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup

_GROWTH = frozenset({"cancel_drain", "activate", "recruit"})


def plan(observation: Observation, tuning: Tuning = DEFAULT_TUNING) -> Plan:
    """Decide everything that is to be done now. Pure: the same observation gives the same plan."""
    observation = mark_unresponsive(observation, tuning)
    inputs = gather(observation, tuning)
    builder = PlanBuilder(observation, tuning, inputs.perfs)
    builder.step(remember_demand, inputs)
    builder.step(finish_drains)
    if observation.deleting:
        builder.step(release_all)
        builder.step(repeat_releases)
    else:
        builder.step(release_orphans)
        if observation.config.endpoint_state is EndpointState.ACTIVE:
            builder.step(enforce_max_workers)
        builder.step(carry_out_actions)
        builder.step(repair)
        match observation.config.endpoint_state:
            case EndpointState.STOPPED:
                builder.step(stop_all)
            case EndpointState.SUSPENDED:
                builder.step(keep_all)
            case EndpointState.ACTIVE:
                _scale(builder, inputs)
    builder.step(explain_booting)
    builder.step(list_instances)
    return _build(builder, inputs)


def _scale(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Bring the fleet to what the parameters ask for under this load."""
    builder.step(enforce_budget)
    inputs = with_fleet_left(inputs, builder.observation, tuple(builder), builder.tuning)
    builder.step(update_idle_workers)
    before = len(builder.operations)
    builder.step(add_hot_capacity, inputs)
    builder.step(overtake_slow_boots, inputs)
    builder.step(meet_workergroup_floors)
    if any(each.op in _GROWTH for each in builder.operations[before:]):
        builder.remember(grew_at=builder.now)
    builder.step(fill_cold_pool, inputs)
    builder.step(update_ready_workers, inputs)
    if inputs.demand.over_target:
        return
    is_settled = inputs.forecast.settled or inputs.is_inactive
    if is_settled:
        builder.step(remove_hot_capacity, inputs)
    if is_settled or is_known_idle(builder.observation, builder.tuning):
        builder.step(remove_cold_capacity, inputs)


# -- recent peaks


def remember_demand(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Record today's demand among the recent peaks, so that a lull does not cost a start."""
    tuning, demand, memory, now = builder.tuning, inputs.demand, builder.memory, builder.now
    hold = inputs.retention.longest_seconds
    # A peak between two plans counts as well.
    needed = peak_demand_since(inputs.keepalive, now - tuning.demand_hold_seconds)
    hot = update_peaks(memory.hot_peaks, max(demand.arrivals, needed), now, hold)
    # The disk of a worker that was hot once is kept while it costs less than the boot that it saves.
    pool = max(demand.sustained * inputs.parameters.cold_mult, demand.predicted)
    total = update_peaks(memory.total_peaks, pool, now, tuning.total_hold_seconds)
    if builder.observation.memory is None:
        supply, util = builder.supply(), inputs.target_util
        # A planner without memory removes nothing: it takes the present capacity for the recent demand.
        hot = update_peaks(((now, supply.ready * util),), demand.arrivals, now, hold)
        total = update_peaks(((now, supply.total * util),), pool, now, tuning.total_hold_seconds)
    if inputs.is_inactive:
        # The user defined the pause that ends the work: no hold in addition.
        hot = ((now, demand.arrivals),)
    builder.remember(hot_peaks=hot, total_peaks=total, keepalive=inputs.keepalive)
    wakes = [
        next_release(hot, now, inputs.retention.seconds),
        next_release(hot, now, inputs.retention.tail_seconds),
        next_release(total, now, tuning.total_hold_seconds),
    ]
    if inputs.retention.seasonal:
        wakes.append(next_rise(inputs.keepalive.minute_peaks, now, inputs.seasonal_lead_seconds, tuning))
    builder.wakes += filter(None, wakes)
    timeout, last = builder.config.inactivity_timeout, builder.observation.load.last_request_at
    if timeout and timeout > 0 and last is not None:
        builder.wakes.append(last + timeout)


# -- scale up


def add_hot_capacity(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Add missing hot capacity: at once if it is urgent, else after `scale_up_hold_seconds`."""
    demand, supply, extra = inputs.demand, builder.supply(), update_surge(builder)
    wanted = demand.hot + extra
    gap = 0.0 if supply.unknown_booting else wanted - supply.hot
    if gap > LOAD_EPSILON / 2:
        above_since = builder.memory.above_since
        since = builder.now if above_since is None else above_since
        builder.remember(above_since=since)
        if _is_urgent(builder, inputs, gap) or builder.now - since >= builder.tuning.scale_up_hold_seconds:
            why = _why_more(builder, inputs, wanted, supply.hot, extra)
            scale_up(builder, gap, why, rent_max=demand.rented + extra - supply.hot)
            if update_surge(builder) > extra:
                add_hot_capacity(builder, inputs)  # an outdated worker was taken back, and needs a substitute
        else:
            builder.wakes.append(since + builder.tuning.scale_up_hold_seconds)
    elif builder.memory.above_since is not None:
        builder.remember(above_since=None)


def overtake_slow_boots(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Start cold workers for urgent demand that only machines with minutes left to boot would cover."""
    supply, wanted = builder.supply(), inputs.demand.hot
    in_time = supply.hot - supply.overtaken
    need = wanted - in_time
    if (
        need > LOAD_EPSILON / 2
        and supply.overtaken > 0
        and supply.cold > 0
        and _is_urgent(builder, inputs, need)
    ):
        why = Reason(
            f"{load(supply.overtaken)} boot for longer than a start takes,"
            f" {figure(in_time)} of {load(wanted)} are hot in time",
            {"hot_wanted": wanted, "hot": in_time, "overtaken": supply.overtaken},
        )
        scale_up(builder, need, why, rent_max=0.0)


def _is_urgent(builder: PlanBuilder, inputs: PlanInputs, gap: float) -> bool:
    """Whether to act at once: a long queue, a burst, a floor, or a gap larger than noise."""
    hot = builder.supply().hot
    return (
        inputs.demand.over_target
        or inputs.forecast.burst
        or hot <= 0
        or hot < inputs.demand.hot_floor
        or gap > hot * builder.tuning.scale_up_tolerance
    )


def _why_more(builder: PlanBuilder, inputs: PlanInputs, wanted: float, hot: float, extra: float) -> Reason:
    demand, util = inputs.demand, inputs.target_util
    numbers = {"predicted_load": demand.predicted, "hot_wanted": wanted, "hot": hot}
    figures = f"{figure(hot)} of {load(wanted)} hot"
    if extra:
        return Reason(f"rolling update, {load(extra)} more during it, {figures}", numbers)
    if demand.predicted / util < demand.hot_floor:
        if demand.hot_floor <= LOAD_EPSILON:
            return Reason("inactivity_timeout keeps one worker hot, none is", numbers)
        return Reason(f"below min_load, {figures}", numbers)
    if demand.over_target:
        target = builder.config.target_queue_time
        numbers |= {"target_queue_time": target}
        if demand.queue_seconds >= QUEUE_SECONDS_MAX:
            return Reason(f"requests wait and no worker is ready, {figures}", numbers)
        numbers |= {"queue_seconds": demand.queue_seconds}
        return Reason(
            f"queue time {duration(demand.queue_seconds)} over target {target:g} s, {figures}", numbers
        )
    spare = [f"target_util {util:g}"] if util < 1 else []
    spare += [inputs.retention.reason] if inputs.retention.reason else []
    at = f" at {', '.join(spare)}" if spare else ""
    return Reason(f"predicted {load(demand.predicted)}{at}, {figures}", numbers)


def meet_workergroup_floors(builder: PlanBuilder) -> None:
    """Meet min_load, cold_workers and min_cold_load of single workergroups."""
    for group in builder.groups.values():
        if not (group.min_load or group.cold_workers or group.min_cold_load):
            continue
        supply = _supply_of_group(builder, group)
        if group.min_load and not supply.unknown_booting and supply.hot < group.min_load:
            why = Reason(
                f"below min_load of workergroup {group.id}, {figure(supply.hot)} of {load(group.min_load)} hot",
                {"hot_wanted": group.min_load, "hot": supply.hot},
            )
            scale_up(builder, group.min_load - supply.hot, why, [group])
            supply = _supply_of_group(builder, group)
        missing = (group.cold_workers or 0) - supply.keepable
        need = 0.0 if supply.unknown_booting else (group.min_cold_load or 0.0) - supply.total
        if missing > 0:
            why = Reason(
                f"below cold_workers of workergroup {group.id}, {supply.keepable} of {group.cold_workers} exist",
                {"workers_wanted": float(group.cold_workers or 0), "workers": supply.keepable},
            )
        elif need > LOAD_EPSILON:
            wanted = group.min_cold_load or 0.0
            why = Reason(
                f"below min_cold_load of workergroup {group.id}, {figure(supply.total)} of {load(wanted)} exist",
                {"total_wanted": wanted, "total": supply.total},
            )
        else:
            continue
        _load_workers(builder, need=need, missing=missing, why=why, groups=[group])


def _supply_of_group(builder: PlanBuilder, group: Workergroup) -> Supply:
    return builder.supply_of(worker for worker in builder if worker.workergroup_id == group.id)


def fill_cold_pool(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Let workers load until min_workers and the total capacity are met. They stop when they are not needed hot."""
    demand, supply = inputs.demand, builder.supply()
    floor = workers_min(builder.observation)
    missing = floor - supply.keepable
    need = 0.0 if supply.unknown_booting else demand.total - supply.total
    if missing > 0:
        why = Reason(
            f"below min_workers, {supply.keepable} of {count(floor, 'worker')} loaded or booting",
            {"workers_wanted": floor, "workers": supply.keepable},
        )
    elif need > demand.total * builder.tuning.scale_up_tolerance:
        name = (
            "min_cold_load"
            if demand.total <= builder.config.min_cold_load
            else f"cold_mult {inputs.parameters.cold_mult:g}"
        )
        why = Reason(
            f"below {name}, {figure(supply.total)} of {load(demand.total)} exist hot and cold",
            {"total_wanted": demand.total, "total": supply.total},
        )
    else:
        return
    _load_workers(builder, need=need, missing=missing, why=why, groups=builder.groups.values())


def _load_workers(
    builder: PlanBuilder, *, need: float, missing: int, why: Reason, groups: Iterable[Workergroup]
) -> None:
    """Load `need` load/s and `missing` workers: first workers that were stopped before they loaded, then new ones."""
    allowed = {group.id: group for group in groups}
    for worker in builder:
        if missing <= 0 and need <= 0:
            return
        stopped = worker.state is WorkerState.CREATED and worker.workergroup_id in allowed
        if stopped and can_start(builder, worker) and start(builder, worker, why):
            missing -= 1
            need -= builder.perfs.worker(worker) or need
    if missing > 0 or need > LOAD_EPSILON:
        recruit(builder, need=max(need, 0.0), count=max(missing, 0), why=why, groups=allowed.values())


# -- scale down


def remove_hot_capacity(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Drain ready workers that neither the demand nor its recent peaks need."""
    kept = _kept_hot(builder, inputs)
    why = _why_fewer_hot(builder, inputs, kept.load, kept.cause)
    drain_surplus(builder, kept.load + update_surge(builder), why)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The hot capacity that is kept, load/s, its cause, and the function and sentence that decided it."""

    load: float
    cause: str
    by: str
    sentence: int


def _kept_hot(builder: PlanBuilder, inputs: PlanInputs) -> _Kept:
    """The largest of the held peaks, the floor and what clears the queue."""
    demand, util = inputs.demand, inputs.target_util
    level = inputs.retention.level(builder.memory.hot_peaks, builder.now)
    is_peak = level > demand.arrivals * (1.0 + inputs.retention.spare_share)
    floor = "inactivity_timeout" if demand.hot_floor <= LOAD_EPSILON else "min_load"
    return max(
        (
            _Kept(level / util, "recent peaks", "remember_demand", 6)
            if is_peak
            else _Kept(level / util, "the predicted load", "forecast", 3),
            _Kept(demand.hot_floor, floor, "estimate_demand", 4),
            _Kept(demand.clearing, "the queue", "surge_capacity", 5),
        ),
        key=lambda each: each.load,
    )


def _why_fewer_hot(builder: PlanBuilder, inputs: PlanInputs, kept: float, keeper: str) -> Reason:
    numbers = {"hot_wanted": inputs.demand.hot, "hot_kept": kept}
    last = builder.observation.load.last_request_at
    if inputs.is_inactive and last is not None:
        numbers["idle_seconds"] = builder.now - last
        return Reason(f"idle for {duration(builder.now - last)} (inactivity_timeout)", numbers)
    if kept < LOAD_EPSILON:
        numbers["keepalive_seconds"] = inputs.retention.longest_seconds
        return Reason(f"no load for {duration(inputs.retention.longest_seconds)} (keep-alive)", numbers)
    needed = load(kept) if kept > LOAD_EPSILON else "one worker"
    is_spare = inputs.retention.reason and keeper in ("recent peaks", "the predicted load")
    spare = f", {inputs.retention.reason}" if is_spare else ""
    return Reason(f"{needed} needed hot for {keeper}{spare}", numbers)


def remove_cold_capacity(builder: PlanBuilder, inputs: PlanInputs) -> None:
    """Release cold workers that neither the total demand nor its peaks of the last hours need."""
    demand, tuning = inputs.demand, builder.tuning
    peak = held_level(builder.memory.total_peaks, builder.now, tuning.total_hold_seconds)
    kept = max(
        _kept_hot(builder, inputs).load,
        peak / inputs.target_util,
        demand.hot_floor * inputs.parameters.cold_mult,
        demand.total,
        builder.config.min_cold_load,
    )
    why = Reason(f"{load(kept)} needed hot and cold", {"total_wanted": demand.total, "total_kept": kept})
    release_surplus(builder, kept + update_surge(builder), why)


def _build(builder: PlanBuilder, inputs: PlanInputs) -> Plan:
    supply, demand = builder.supply(), inputs.demand
    config, kept = builder.config, _kept_hot(builder, inputs)
    is_scaled = config.endpoint_state is EndpointState.ACTIVE and not builder.observation.deleting
    if not is_scaled or kept.load <= 0:
        kept = _Kept(0.0, "", "", 0)
    targets = Targets(
        predicted_load=demand.predicted,
        hot_wanted=demand.hot,
        hot_ready=supply.ready,
        hot_booting=supply.booting,
        total_wanted=demand.total,
        total_have=supply.total,
        workers_wanted_min=workers_min(builder.observation),
        queue_seconds=min(demand.queue_seconds, QUEUE_SECONDS_MAX),
        dollars_per_hour=sum([worker.burn_dollars_per_hour for worker in builder.observation.workers]),
        reason=demand.reason,
        hot_kept=kept.load,
        kept_for=kept.cause,
        kept_by=kept.by,
        kept_rule=kept.sentence,
    )
    return builder.plan(targets)
