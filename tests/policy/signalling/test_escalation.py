"""What waits calls the workflow once, and again when it has grown."""

import math

from policy.signalling.escalation import CAUSE_BACKLOG, CAUSE_FIRST, CAUSE_QUEUE, Escalation


def test_the_first_that_nobody_can_serve_and_each_doubling_call():
    alarms = Escalation()
    assert [alarms.backlog(waits) for waits in (1.0, 1.9, 2.0, 3.9, 4.5, 1.0)] == [
        CAUSE_FIRST, None, CAUSE_BACKLOG, None, CAUSE_BACKLOG, None,
    ]  # fmt: skip


def test_after_it_was_served_the_next_backlog_is_a_first_one():
    alarms = Escalation()
    alarms.backlog(100.0)
    alarms.served()
    assert alarms.backlog(1.0) == CAUSE_FIRST


def test_a_queue_over_its_target_calls_and_each_growth_by_half():
    alarms = Escalation()
    assert [alarms.queue(seconds, 2.0) for seconds in (2.0, 2.1, 3.0, 3.2, 4.0, 4.9)] == [
        None, CAUSE_QUEUE, None, CAUSE_QUEUE, None, CAUSE_QUEUE,
    ]  # fmt: skip


def test_a_queue_that_swings_around_its_target_calls_once_until_it_was_at_half():
    alarms = Escalation()
    assert alarms.queue(2.1, 2.0) == CAUSE_QUEUE
    assert [alarms.queue(seconds, 2.0) for seconds in (1.9, 2.1, 1.5, 2.2)] == [None] * 4
    assert [alarms.queue(seconds, 2.0) for seconds in (0.9, 2.1)] == [None, CAUSE_QUEUE]


def test_no_worker_at_all_is_no_news_of_the_queue():
    assert Escalation().queue(math.inf, 2.0) is None
