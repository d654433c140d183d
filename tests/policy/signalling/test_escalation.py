"""A condition is reported urgently once, and again after it has grown."""

import math

from policy.signalling.escalation import CAUSE_BACKLOG, CAUSE_FIRST, CAUSE_QUEUE, Escalation


def test_a_backlog_without_workers_is_reported_at_first_and_at_each_doubling():
    escalation = Escalation()
    assert [escalation.on_backlog(load) for load in (1.0, 1.9, 2.0, 3.9, 4.5, 1.0)] == [
        CAUSE_FIRST, None, CAUSE_BACKLOG, None, CAUSE_BACKLOG, None,
    ]  # fmt: skip


def test_a_backlog_after_a_reset_is_reported_as_the_first_one():
    escalation = Escalation()
    escalation.on_backlog(100.0)
    escalation.reset_backlog()
    assert escalation.on_backlog(1.0) == CAUSE_FIRST


def test_a_queue_time_over_target_is_reported_and_again_at_each_growth_by_half():
    escalation = Escalation()
    assert [escalation.on_queue_time(seconds, 2.0) for seconds in (2.0, 2.1, 3.0, 3.2, 4.0, 4.9)] == [
        None, CAUSE_QUEUE, None, CAUSE_QUEUE, None, CAUSE_QUEUE,
    ]  # fmt: skip


def test_a_queue_time_around_its_target_is_reported_again_only_after_it_fell_below_half():
    escalation = Escalation()
    assert escalation.on_queue_time(2.1, 2.0) == CAUSE_QUEUE
    assert [escalation.on_queue_time(seconds, 2.0) for seconds in (1.9, 2.1, 1.5, 2.2)] == [None] * 4
    assert [escalation.on_queue_time(seconds, 2.0) for seconds in (0.9, 2.1)] == [None, CAUSE_QUEUE]
    assert [escalation.on_queue_time(seconds, 1.0) for seconds in (0.5, 1.1, 0.4, 1.1)] == [
        None, None, None, CAUSE_QUEUE,
    ]  # fmt: skip


def test_an_infinite_queue_time_is_left_to_the_backlog():
    assert Escalation().on_queue_time(math.inf, 2.0) is None
