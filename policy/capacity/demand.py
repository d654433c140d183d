"""Demand: the capacity that an endpoint needs, from its forecast, backlog, floors and inactivity timeout."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.amounts import amount
from policy.capacity.backlog import Backlog, clears_before_boot, surge_capacity
from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.capacity.supply import holds_requests
from policy.keepalive.candidates import Retention
from policy.load.forecast import Forecast
from policy.state.lifecycle import is_booting, is_hot
from policy.state.observation import Observation
from policy.tuning import Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.workergroup import Workergroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingParameters:
    """The endpoint's scaling parameters with the overrides of its workergroups applied."""

    target_util: float
    cold_mult: float

    @classmethod
    def of(cls, config: EndpointConfig, groups: Iterable[Workergroup]) -> "ScalingParameters":
        """Where workergroups disagree, the value that gives more capacity applies.

        They all serve the same requests.
        """
        groups = tuple(groups)
        utils = [config.target_util if each.target_util is None else each.target_util for each in groups]
        mults = [config.cold_mult if each.cold_mult is None else each.cold_mult for each in groups]
        return cls(
            target_util=min(utils, default=config.target_util),
            cold_mult=max(mults, default=config.cold_mult),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Capacity needed now, before hysteresis. Capacities are load/s."""

    predicted: float
    """The larger of the arrivals and what clears the backlog."""
    arrivals: float
    """Expected arrivals, without the backlog."""
    sustained: float
    hot_floor: float
    """`min_load`, or the minimum that keeps one worker hot during the inactivity timeout."""
    hot: float
    rented: float
    """The part of `hot` for which new machines are rented. They cost more than starts and take minutes."""
    clearing: float
    """The minimum that clears the present backlog within `target_queue_time`: drains stop there."""
    total: float
    queue_seconds: float
    over_target: bool
    """The queue time is over `target_queue_time`: scale up without delay."""
    reason: str


def estimate_demand(
    observation: Observation,
    expected: Forecast,
    rules: ScalingParameters,
    perfs: PerfEstimates,
    tuning: Tuning,
    keep: Retention,
) -> Demand:
    """The capacity that the parameters ask for under this load, without hysteresis.

    `keep` adds the spare capacity that the keep-alive evaluation chose, beyond that of `target_util`.
    """
    config = observation.config
    inactive = is_past_inactivity_timeout(observation, expected)
    if inactive:
        expected = replace(expected, load=0.0, rising=0.0)
    arrivals = expected.load
    backlog = Backlog.of(observation, perfs)
    over_target = backlog.seconds > config.target_queue_time
    calm = max(arrivals * (1.0 + keep.spare_share) / rules.target_util, config.min_load)
    surge = rented = 0.0
    floor = hot_floor(observation)
    if over_target:
        surge = surge_capacity(observation, backlog, expected, calm, perfs, tuning, rent=False)
        if not clears_before_boot(observation, backlog, expected, perfs, tuning):
            rented = surge_capacity(observation, backlog, expected, calm, perfs, tuning, rent=True)
    hot = max(calm, surge, floor)
    sustained = expected.sustained if rules.cold_mult > 1 else min(expected.sustained, arrivals)
    slow = max(sustained / rules.target_util, floor)
    reason = "; ".join(filter(None, (expected.reason, keep.reason)))
    if inactive:
        reason = f"no request for {config.inactivity_timeout:g} s (inactivity_timeout)"
    if over_target:
        wait = "no ready worker" if math.isinf(backlog.seconds) else f"{backlog.seconds:.0f} s to clear"
        reason += (
            f"; {observation.load.backlog_requests} waiting with {amount(observation.load.backlog_load)} load,"
            f" {wait}, target {config.target_queue_time:g} s"
        )
    elif arrivals / rules.target_util < floor:
        reason += f"; floor {amount(floor)} load/s"
    return Demand(
        predicted=max(arrivals, surge * rules.target_util),
        arrivals=arrivals,
        sustained=sustained,
        hot_floor=floor,
        hot=hot,
        rented=max(calm, rented, floor),
        clearing=backlog.load / config.target_queue_time,
        total=max(hot if rented else max(calm, floor), slow * rules.cold_mult, config.min_cold_load),
        queue_seconds=backlog.seconds,
        over_target=over_target,
        reason=reason,
    )


def hot_floor(observation: Observation) -> float:
    """The minimum hot capacity, load/s: `min_load` of endpoint and workergroups, or one worker before the timeout."""
    config = observation.config
    floor = max(config.min_load, sum(group.min_load or 0.0 for group in observation.workergroups))
    return max(floor, LOAD_EPSILON) if forbids_scale_to_zero(observation) else floor


def forbids_scale_to_zero(observation: Observation) -> bool:
    """Whether `inactivity_timeout` requires a hot worker now.

    A negative timeout always does; a positive one does until so many seconds after the last request.
    """
    timeout = observation.config.inactivity_timeout
    if not timeout:
        return False
    if timeout < 0:
        return True
    last = observation.load.last_request_at
    return has_running_requests(observation) or (last is not None and observation.now - last < timeout)


def has_running_requests(observation: Observation) -> bool:
    """Whether any reachable ready worker holds a request, however long that request runs."""
    return any(
        is_hot(worker) and worker.suspect_since is None and holds_requests(worker)
        for worker in observation.workers
    )


def is_past_inactivity_timeout(observation: Observation, expected: Forecast) -> bool:
    """Whether the endpoint has had no request for `inactivity_timeout` seconds.

    The timeout overrides the forecast, whose window may still contain load.
    """
    timeout, last = observation.config.inactivity_timeout, observation.load.last_request_at
    return (
        timeout is not None
        and timeout > 0
        and expected.known
        and last is not None
        and observation.now - last >= timeout
        and observation.load.backlog_requests == 0
        and not has_running_requests(observation)
    )


def is_known_idle(observation: Observation, tuning: Tuning) -> bool:
    """Whether only cold workers are left and the engines reported recently enough for an idle endpoint.

    Engines report less often for an endpoint without hot workers, so the limit is `metrics_stale_idle_seconds`.
    """
    history = observation.load
    return (
        history.is_known(observation.now, tuning.metrics_stale_idle_seconds)
        and history.covered_seconds >= tuning.medium_window_seconds
        and not any(is_hot(worker) or is_booting(worker) for worker in observation.workers)
    )
