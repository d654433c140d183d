"""A plan that releases every worker of a deleted endpoint without a forecast.

It is used when the planner fails: a fault in the forecast or the demand must not keep machines rented.
"""

from policy.capacity.performance import PerfEstimates
from policy.planning.drain import finish_drains, release_all, repeat_releases
from policy.planning.plan_builder import PlanBuilder
from policy.planning.polling import list_instances
from policy.state.liveness import mark_unresponsive
from policy.state.observation import Observation
from policy.state.plan import Plan, Targets
from policy.tuning import DEFAULT_TUNING, Tuning


def plan_deletion(observation: Observation, tuning: Tuning = DEFAULT_TUNING) -> Plan:
    """Drain hot workers, destroy the others, repeat until the marketplace confirms. Pure.

    The endpoint of the observation is being deleted.
    """
    observation = mark_unresponsive(observation, tuning)
    perfs = PerfEstimates.of(observation.workers, observation.learned)
    builder = PlanBuilder(observation, tuning, perfs)
    builder.step(finish_drains)
    builder.step(release_all)
    builder.step(repeat_releases)
    builder.step(list_instances)
    cost = sum([worker.burn_dollars_per_hour for worker in observation.workers])
    return builder.plan(Targets(dollars_per_hour=cost, reason="the endpoint is being deleted"))
