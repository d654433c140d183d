"""Changes of load that make a plan due."""

import pytest

from controller.plan_due import level, level_moved, level_reason, queue_reason
from policy.load.history import LoadHistory
from policy.tuning import DEFAULT_TUNING
from tests.policy.builders import steady

CHANGE = DEFAULT_TUNING.replan_rate_change


@pytest.mark.parametrize(
    ("now", "planned", "hot", "moved"),
    [
        (100 * (1 + CHANGE) + 0.1, 100, 0, True),
        (100 * (1 + CHANGE) - 0.1, 100, 0, False),
        (100 * (1 - CHANGE) - 0.1, 100, 0, True),
        (100 * (1 - CHANGE) + 0.1, 100, 0, False),
        (2.0, 0, 200, False),  # 1 % of the ready capacity
        (2.1, 0, 200, True),
        (1e-6, 0, 0, True),
        (1e-9, 0, 0, False),
        (0, 0, 0, False),
    ],
)
def test_arrivals_moved_if_they_changed_by_a_share_of_the_plan_and_of_the_capacity(now, planned, hot, moved):
    assert level_moved(now, planned, hot) is moved


def test_the_reason_names_both_levels():
    assert level_reason(steady(50.0), 20.0, 0.0) == "load moved from 20 to 50/s"
    assert level_reason(steady(50.0), 50.0, 0.0) == ""
    assert level(LoadHistory()) is None
    assert level_reason(LoadHistory(), 20.0, 0.0) == "", "nothing is known"


@pytest.mark.parametrize(
    ("queued", "before", "reason"),
    [
        (5.0, 0.0, "5 load waits"),
        (0.5, 0.0, "0.5 load waits"),
        (100 * (1 + CHANGE) + 0.1, 100.0, f"{100 * (1 + CHANGE) + 0.1:.4g} load waits"),
        (100 * (1 + CHANGE) - 0.1, 100.0, ""),
        (50.0, 100.0, ""),
        (0.0, 100.0, "the queue is empty"),
        (0.0, 0.5, "the queue is empty"),
        (0.0, 0.0, ""),
    ],
)
def test_a_queue_that_begins_grows_by_a_share_or_ends_makes_a_plan_due(queued, before, reason):
    assert queue_reason(queued, before) == reason
