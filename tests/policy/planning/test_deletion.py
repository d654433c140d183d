"""The plan of a deletion without a forecast, for when the planner fails."""

from dataclasses import replace

from hypothesis import given

from policy.planning.deletion import plan_deletion
from policy.planning.planner import plan
from policy.state.worker import Goal
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    after,
    brief,
    draining,
    find_faults,
    see,
    worker,
)
from tests.policy.test_properties import observations, some


@some
@given(observations)
def test_a_deletion_without_a_forecast_orders_the_same_operations(observation):
    deleted = replace(observation, deleting=True)
    decided = plan_deletion(deleted)
    assert find_faults(deleted, decided) == ()
    assert decided.operations == plan(deleted).operations
    assert plan_deletion(after(deleted, decided)).operations == ()


def test_a_deletion_drains_hot_workers_and_destroys_the_others():
    fleet = [
        worker("hot"),
        draining("held", Goal.DESTROY, in_flight=1),
        draining("empty", Goal.DESTROY),
        worker("cold", COLD),
        worker("unconfirmed", S.DESTROYING),
    ]
    decided = plan_deletion(see(*fleet, deleting=True))
    assert brief(decided) == [
        "destroy empty",
        "drain hot to destroy",
        "destroy cold",
        "destroy unconfirmed",
    ]
    assert decided.waits[0].reason == "the endpoint is being deleted; 5 workers to release"
    assert decided.replan_at is not None
    assert NOW < decided.replan_at <= NOW + 570


def test_a_deletion_keeps_the_memory_of_the_planner():
    seen = see(worker("hot"), deleting=True)
    remembered = plan(seen).memory
    assert plan_deletion(replace(seen, memory=remembered)).memory == remembered
