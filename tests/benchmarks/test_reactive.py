"""Instant reaction on arrivals with a result that can be computed by hand."""

import random

import pytest

from benchmarks.scaling.bounds.reactive import frontier, react


def _react(times, services, **setting):
    given = {"start_seconds": 20.0, "billed_seconds": 20.0, "keep_seconds": 0.0} | setting
    return react(times, services, **given)


def test_a_request_out_of_nothing_waits_for_the_start():
    made = _react([0.0, 1000.0], [5.0, 5.0])
    assert made.within == 0.0
    assert made.starts == 2
    assert made.seconds == pytest.approx(2 * (20.0 + 5.0))


def test_who_is_kept_hot_through_the_gap_serves_at_once():
    made = _react([0.0, 100.0], [5.0, 5.0], keep_seconds=200.0)
    # ready at 20, free at 25, idle until 100
    assert made.within == 0.5
    assert made.starts == 1
    assert made.seconds == pytest.approx(20.0 + 10.0 + 75.0)


def test_spare_meets_a_second_request_while_the_first_is_served():
    times, services = [0.0, 100.0, 101.0], [5.0, 30.0, 5.0]
    assert _react(times, services, keep_seconds=300.0).within == pytest.approx(1 / 3)
    assert _react(times, services, keep_seconds=300.0, spare=1).within == pytest.approx(2 / 3)


def test_short_requests_that_wait_share_a_start():
    # ten of 1 s at once are cleared within the allowed 10 s by one worker
    made = _react([0.0] * 10, [1.0] * 10)
    assert made.starts == 1


def test_what_was_before_scoring_is_not_counted():
    made = _react([0.0, 100.0], [5.0, 5.0], keep_seconds=200.0, score_from=50.0)
    # the start and the first request are the warm-up's; of the gap 50 s are scored
    assert (made.within, made.starts) == (1.0, 0)
    assert made.seconds == pytest.approx(50.0 + 5.0)


def test_every_request_is_served_once_and_work_is_what_is_paid_at_least():
    chance = random.Random(5)
    times = sorted(chance.uniform(0.0, 3600.0) for _ in range(500))
    services = [chance.uniform(1.0, 20.0) for _ in times]
    for keep in (0.0, 60.0):
        made = _react(times, services, keep_seconds=keep, spare_share=0.5)
        assert 0.0 <= made.within <= 1.0
        assert made.seconds >= sum(services)


def test_on_the_frontier_more_attainment_costs_more():
    chance = random.Random(6)
    times = sorted(chance.uniform(0.0, 7200.0) for _ in range(300))
    line = frontier(times, [10.0] * 300, start_seconds=23.0, billed_seconds=25.0)
    assert len(line) > 2
    assert [each.within for each in line] == sorted(each.within for each in line)
    assert [each.seconds for each in line] == sorted(each.seconds for each in line)


def test_spare_workers_that_nobody_uses_are_paid_for_as_long_as_they_idle():
    made = _react([0.0, 1000.0], [5.0, 5.0], spare=2)
    # three are ready at 20 and one of them serves; at 25 they are one too many, and one goes; one idles from 20 to
    # the end,
    # one from 25 to 1000
    assert made.starts == 3
    assert made.seconds == pytest.approx(3 * 20.0 + 2 * 5.0 + 5.0 + 985.0 + 975.0)


def test_a_worker_beyond_what_is_needed_goes_when_it_was_kept_and_the_need_has_ended():
    # two serve together, so half as many are spare; with the second request over one spare is one too many
    paid = [
        _react([0.0, 0.0, 500.0], [30.0, 400.0, 1.0], keep_seconds=keep, spare_share=0.5).seconds
        for keep in (0.0, 50.0, 200.0)
    ]
    assert paid == sorted(paid)
    assert len(set(paid)) == 3
