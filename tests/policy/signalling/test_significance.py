"""Which changes of an endpoint's load are reported."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.signalling.significance import (
    Arrivals,
    QueueState,
    activity_report_due_at,
    arrivals_changed,
    queue_changed,
)

FIVE = Arrivals(5.0, 500.0, 5)
MANY = Arrivals(5.0, 50_000.0, 500)


@pytest.mark.parametrize("requests", [3, 5, 6])
def test_a_change_by_few_requests_is_chance(requests):
    assert not arrivals_changed(FIVE, Arrivals(5.0, 100.0 * requests, requests))


@pytest.mark.parametrize("requests", [0, 1, 9])
def test_a_larger_change_is_significant(requests):
    assert arrivals_changed(FIVE, Arrivals(5.0, 100.0 * requests, requests))


def test_a_change_of_many_requests_is_significant_above_a_tenth():
    assert arrivals_changed(MANY, Arrivals(5.0, 57_000.0, 570))
    assert not arrivals_changed(MANY, Arrivals(5.0, 54_000.0, 540))


def test_the_first_request_after_a_pause_is_always_significant():
    assert arrivals_changed(Arrivals(5.0, 0.0, 0), Arrivals(5.0, 1.0, 1))
    assert arrivals_changed(Arrivals(), Arrivals(5.0, 1.0, 1))


def test_a_pause_after_one_request_becomes_significant_with_time():
    one = Arrivals(5.0, 100.0, 1)
    assert not arrivals_changed(one, Arrivals(5.0, 0.0, 0))
    assert arrivals_changed(one, Arrivals(15.0, 0.0, 0))


@given(st.integers(1, 10_000), st.floats(0.01, 1e6), st.floats(1.0, 60.0))
def test_unchanged_arrivals_are_never_significant(requests, cost, seconds):
    reported = Arrivals(5.0, cost * requests, requests)
    assert not arrivals_changed(reported, reported)
    assert not arrivals_changed(reported, Arrivals(seconds, reported.load / 5.0 * seconds, requests))


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_a_change_twice_as_large_is_significant_too(reported, more):
    before, once, twice = (
        Arrivals(5.0, 10.0 * n, n) for n in (reported, reported + more, reported + 2 * more)
    )
    assert arrivals_changed(before, twice) >= arrivals_changed(before, once)


any_arrivals = st.builds(
    Arrivals, st.floats(0.0, 120.0), st.floats(0.0, 1e15, allow_subnormal=True), st.integers(0, 10**6)
)


@given(any_arrivals, any_arrivals)
@example(Arrivals(5.0, 1e-322, 1), Arrivals(5.0, 0.0, 1000))
def test_any_declared_load_is_compared_without_an_error(reported, seen):
    """An exception here would stop the reports of all endpoints."""
    assert arrivals_changed(reported, seen) in {True, False}


def test_costs_too_small_to_compare_are_a_change():
    assert arrivals_changed(Arrivals(5.0, 1e-322, 1), Arrivals(5.0, 0.0, 1000))


def test_a_queue_time_counts_above_half_of_its_target_and_while_a_worker_is_ready():
    assert QueueState.of(0, 5.0, 10.0) == QueueState.of(0, math.inf, 10.0) == QueueState(0, 0.0)
    assert queue_changed(QueueState(0, 0.0), QueueState.of(0, 5.1, 10.0))
    assert not queue_changed(QueueState(0, 6.0), QueueState(0, 7.4))
    assert queue_changed(QueueState(0, 6.0), QueueState(0, 7.6))


def test_a_queue_that_appears_empties_or_grows_by_a_quarter_is_significant():
    assert queue_changed(QueueState(0), QueueState(1))
    assert queue_changed(QueueState(1), QueueState(0))
    assert not queue_changed(QueueState(8), QueueState(10))
    assert queue_changed(QueueState(8), QueueState(11))


def test_a_later_request_is_due_shortly_before_the_inactivity_timeout():
    assert activity_report_due_at(100.0, 105.0, 60.0) == 158.0
    assert activity_report_due_at(100.0, 101.5, 3.0) == 101.5, "a short timeout is halved"


def test_no_activity_report_is_due_without_a_later_request_or_a_timeout():
    assert activity_report_due_at(100.0, 100.0, 60.0) == math.inf
    assert activity_report_due_at(None, 100.0, 60.0) == math.inf, "the first request is significant anyway"
    assert activity_report_due_at(100.0, None, 60.0) == math.inf
    for timeout in (None, 0.0, -1.0):
        assert activity_report_due_at(100.0, 105.0, timeout) == math.inf
