"""The end of an endpoint, planned without asking what load is expected: for when the planner fails.

What it takes to be rid of every machine depends on the machines alone. A fault in how load is forecast or capacity is
counted must not keep them rented.
"""

from policy.planning.drain import delete_all, finish_drains, release_again
from policy.planning.planned_fleet import PlannedFleet
from policy.planning.polling import look
from policy.state.observation import Memory, Observation
from policy.state.plan import Plan, Targets
from policy.tuning import DEFAULT_TUNING, Tuning


def plan_deletion(observation: Observation, tuning: Tuning = DEFAULT_TUNING) -> Plan:
    """Drain what takes requests, destroy the rest, and ask again until the marketplace confirms. Pure, like every plan.

    The observation is of an endpoint that is being deleted.
    """
    orders = PlannedFleet(observation, tuning)
    finish_drains(orders)
    delete_all(orders)
    release_again(orders)
    look(orders)
    return Plan(
        operations=tuple(orders.operations),
        targets=Targets(
            dollars_per_hour=sum([worker.burn_dollars_per_hour for worker in observation.workers]),
            reason="the endpoint is being deleted",
        ),
        waits=tuple(orders.waits),
        replan_at=orders.replan_at,
        memory=observation.memory or Memory(),
    )
