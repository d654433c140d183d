"""Everything that a plan is decided from, computed once per observation: keep-alive, forecast, demand."""

from dataclasses import dataclass, replace

from policy.capacity.boot_time import boot_seconds, start_seconds
from policy.capacity.demand import Demand, ScalingParameters, estimate_demand, is_past_inactivity_timeout
from policy.capacity.limits import workers_min
from policy.capacity.performance import PerfEstimates
from policy.capacity.supply import takes_requests
from policy.keepalive.candidates import LatePrice, Retention
from policy.keepalive.evaluation import (
    EvaluationParameters,
    KeepaliveState,
    chosen_retention,
    demand_window_seconds,
    evaluate,
)
from policy.load.forecast import Forecast, forecast
from policy.load.seasonality import seasonal_level
from policy.state.observation import Memory, Observation
from policy.state.worker import Worker
from policy.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """The inputs of a plan: known state and wanted capacity. Capacities are load/s."""

    perfs: PerfEstimates
    parameters: ScalingParameters
    seasonal_lead_seconds: float
    """How long before a seasonal peak its capacity is started."""
    keepalive: KeepaliveState
    """Costs and late work of every keep-alive candidate, up to now."""
    retention: Retention
    """The keep-alive that is in force."""
    forecast: Forecast
    demand: Demand
    is_inactive: bool
    """The endpoint has had no request for `inactivity_timeout`."""

    @property
    def target_util(self) -> float:
        """Share of the hot capacity that the predicted load may use."""
        return self.parameters.target_util


def gather(observation: Observation, tuning: Tuning) -> PlanInputs:
    """Evaluate the keep-alive candidates, forecast the load, and estimate the demand."""
    memory = observation.memory or Memory()
    perfs = PerfEstimates.of(observation.workers, observation.learned)
    parameters = ScalingParameters.of(observation.config, observation.workergroups)
    keeps_cold = _keeps_cold(observation, parameters)
    service_seconds = _service_seconds(observation, perfs, tuning)
    lead_seconds = _seasonal_lead_seconds(observation, tuning, keeps_cold=keeps_cold)
    return_seconds = _return_seconds(observation, tuning, keeps_cold)
    keepalive = evaluate(
        memory.keepalive,
        observation.load,
        EvaluationParameters(
            worker_load_per_second=perfs.mean * parameters.target_util,
            service_seconds=max(service_seconds, 0.05),
            start_seconds=min(return_seconds, tuning.sustained_window_seconds),
            lead_seconds=lead_seconds,
            billed_seconds=return_seconds,
            target_queue_seconds=observation.config.target_queue_time,
            late_price=LatePrice.of(observation.config.error_budget, tuning),
        ),
        tuning,
    )
    retention = chosen_retention(keepalive, tuning)
    expected = forecast(
        observation.load,
        observation.now,
        tuning,
        window_seconds=demand_window_seconds(observation.config.target_queue_time, service_seconds, tuning),
        seasonal_load=seasonal_level(keepalive.minute_peaks, observation.now, lead_seconds, tuning)
        if retention.seasonal
        else 0.0,
    )
    return PlanInputs(
        perfs=perfs,
        parameters=parameters,
        seasonal_lead_seconds=lead_seconds,
        keepalive=keepalive,
        retention=retention,
        forecast=expected,
        demand=estimate_demand(observation, expected, parameters, perfs, tuning, retention),
        is_inactive=is_past_inactivity_timeout(observation, expected),
    )


def with_fleet_left(
    inputs: PlanInputs, observation: Observation, workers: tuple[Worker, ...], tuning: Tuning
) -> PlanInputs:
    """The inputs with the demand of the fleet that the first steps left: less ready capacity, a longer queue time."""
    if sum(map(takes_requests, workers)) == sum(map(takes_requests, observation.workers)):
        return inputs
    left = replace(observation, workers=workers)
    demand = estimate_demand(left, inputs.forecast, inputs.parameters, inputs.perfs, tuning, inputs.retention)
    return replace(inputs, demand=demand)


def _keeps_cold(observation: Observation, parameters: ScalingParameters) -> bool:
    """Whether the endpoint keeps cold workers. If not, capacity that was released comes back by a boot."""
    return (
        parameters.cold_mult > 1
        or observation.config.min_cold_load > 0
        or workers_min(observation) > 0
        or any(record.starts > 0 for record in observation.learned.kinds)
    )


def _service_seconds(observation: Observation, perfs: PerfEstimates, tuning: Tuning) -> float:
    """Seconds that a request keeps one worker busy. While unknown: the value that makes the demand window a minute."""
    cost, perf = observation.load.mean_cost, perfs.mean
    if cost <= 0 or perf <= 0:
        return tuning.medium_window_seconds - observation.config.target_queue_time
    return cost / perf


def _seasonal_lead_seconds(observation: Observation, tuning: Tuning, *, keeps_cold: bool) -> float:
    """Lead time before a seasonal peak; without cold workers it is as long as nine of ten boots take."""
    if keeps_cold:
        return tuning.seasonal_lead_seconds
    boot = tuning.overdue_factor * boot_seconds(observation.learned, tuning)
    return max(tuning.seasonal_lead_seconds, min(boot, tuning.seasonal_lead_seconds_max))


def _return_seconds(observation: Observation, tuning: Tuning, keeps_cold: bool) -> float:
    """Seconds until released capacity is back: a start if a cold worker exists, else a boot."""
    loaded = any(worker.loaded_once for worker in observation.workers)
    seconds = start_seconds if loaded and keeps_cold else boot_seconds
    return seconds(observation.learned, tuning)
