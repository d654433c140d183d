"""What of an endpoint's load is worth telling."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.signalling.significance import Arrivals, Waiting, arrivals_moved, renewed_at, waiting_moved

FIVE = Arrivals(5.0, 500.0, 5)
MANY = Arrivals(5.0, 50_000.0, 500)


@pytest.mark.parametrize("requests", [3, 5, 6])
def test_a_few_requests_more_or_less_are_chance(requests):
    assert not arrivals_moved(FIVE, Arrivals(5.0, 100.0 * requests, requests))


@pytest.mark.parametrize("requests", [0, 1, 9])
def test_so_many_more_or_less_are_not(requests):
    assert arrivals_moved(FIVE, Arrivals(5.0, 100.0 * requests, requests))


def test_of_many_requests_a_tenth_matters_and_less_does_not():
    assert arrivals_moved(MANY, Arrivals(5.0, 57_000.0, 570))
    assert not arrivals_moved(MANY, Arrivals(5.0, 54_000.0, 540))


def test_the_first_request_after_silence_is_always_told():
    assert arrivals_moved(Arrivals(5.0, 0.0, 0), Arrivals(5.0, 1.0, 1))
    assert arrivals_moved(Arrivals(), Arrivals(5.0, 1.0, 1))


def test_silence_after_one_request_is_told_when_it_has_lasted():
    one = Arrivals(5.0, 100.0, 1)
    assert not arrivals_moved(one, Arrivals(5.0, 0.0, 0))
    assert arrivals_moved(one, Arrivals(15.0, 0.0, 0))


@given(st.integers(1, 10_000), st.floats(0.01, 1e6), st.floats(1.0, 60.0))
def test_the_same_again_is_never_news(requests, cost, seconds):
    told = Arrivals(5.0, cost * requests, requests)
    assert not arrivals_moved(told, told)
    assert not arrivals_moved(told, Arrivals(seconds, told.load / 5.0 * seconds, requests))


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_twice_the_distance_is_news_when_once_is(told, more):
    before, once, twice = (Arrivals(5.0, 10.0 * n, n) for n in (told, told + more, told + 2 * more))
    assert arrivals_moved(before, twice) >= arrivals_moved(before, once)


any_arrivals = st.builds(
    Arrivals, st.floats(0.0, 120.0), st.floats(0.0, 1e15, allow_subnormal=True), st.integers(0, 10**6)
)


@given(any_arrivals, any_arrivals)
@example(Arrivals(5.0, 1e-322, 1), Arrivals(5.0, 0.0, 1000))
def test_whatever_clients_declare_is_judged(told, seen):
    """One that raised would silence the engine towards every other endpoint."""
    assert arrivals_moved(told, seen) in {True, False}


def test_a_wait_counts_from_half_its_target_on_and_only_while_somebody_works():
    assert Waiting.of(0, 4.9, 10.0) == Waiting.of(0, math.inf, 10.0) == Waiting(0, 0.0)
    assert waiting_moved(Waiting(0, 0.0), Waiting.of(0, 5.1, 10.0))
    assert not waiting_moved(Waiting(0, 6.0), Waiting(0, 7.4))
    assert waiting_moved(Waiting(0, 6.0), Waiting(0, 7.6))


def test_a_line_that_appears_or_empties_or_grows_by_a_quarter_is_news():
    assert waiting_moved(Waiting(0), Waiting(1))
    assert waiting_moved(Waiting(1), Waiting(0))
    assert not waiting_moved(Waiting(8), Waiting(10))
    assert waiting_moved(Waiting(8), Waiting(11))


def test_a_later_request_is_told_before_the_endpoint_renewed_at_and_not_sooner():
    assert renewed_at(100.0, 105.0, 60.0) == 158.0
    assert renewed_at(100.0, 101.5, 3.0) == 101.5, "a short timeout is halved"


def test_without_a_later_request_or_a_timeout_nothing_is_renewed():
    assert renewed_at(100.0, 100.0, 60.0) == math.inf
    assert renewed_at(None, 100.0, 60.0) == math.inf, "the first one is news of itself"
    assert renewed_at(100.0, None, 60.0) == math.inf
    for timeout in (None, 0.0, -1.0):
        assert renewed_at(100.0, 105.0, timeout) == math.inf
