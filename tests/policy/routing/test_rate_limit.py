import math

from hypothesis import given
from hypothesis import strategies as st

from policy.routing.rate_limit import RateLimit


def passes(limit, load, now):
    if limit.wait_seconds(load, now) > 0:
        return False
    limit.take(load, now)
    return True


def test_ten_seconds_of_the_rate_pass_at_once_and_then_the_rate():
    limit = RateLimit(5.0, now=0.0)
    assert [passes(limit, 10.0, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert limit.wait_seconds(10.0, 0.0) == 2.0
    assert not passes(limit, 10.0, 1.9)
    assert passes(limit, 10.0, 2.0)


def test_a_request_larger_than_the_bucket_passes_and_delays_the_next_one():
    limit = RateLimit(1.0, now=0.0)
    assert passes(limit, 100.0, 0.0)
    # 90 in debt: 90 s until it is empty, 10 s until it is full for the next such request
    assert limit.wait_seconds(100.0, 0.0) == 100.0
    assert limit.wait_seconds(1.0, 0.0) == 91.0


def test_a_clock_that_goes_back_grants_nothing_and_delays_nothing():
    limit = RateLimit(1.0, now=1000.0)
    limit.take(10.0, 1000.0)
    assert limit.wait_seconds(1.0, 0.0) == 1.0
    assert limit.wait_seconds(1.0, 1.0) == 0.0


def test_a_change_of_the_rate_keeps_what_was_used():
    limit = RateLimit(10.0, now=0.0)
    limit.take(40.0, 0.0)
    limit.set_rate(5.0, 0.0)
    # 50 of burst, 40 used: 10 are left
    assert limit.wait_seconds(10.0, 0.0) == 0.0
    assert limit.wait_seconds(15.0, 0.0) == 1.0


def test_load_that_was_not_used_comes_back_and_no_more():
    limit = RateLimit(1.0, now=0.0)
    limit.take(4.0, 0.0)
    limit.give_back(1e9)
    assert limit.wait_seconds(10.0, 0.0) == 0.0
    assert limit.wait_seconds(1e12, 0.0) == 0.0, "a full bucket lets any request pass"
    limit.take(10.5, 0.0)
    assert limit.wait_seconds(0.0, 0.0) > 0.0


@given(
    st.floats(0.001, 1e12),
    st.lists(st.tuples(st.floats(-100, 1000), st.floats(0, 1e12)), max_size=50),
)
def test_no_traffic_gets_more_than_the_rate_the_burst_and_one_request(rate, steps):
    limit, now, passed, largest, elapsed = RateLimit(rate, 0.0), 0.0, 0.0, 0.0, 0.0
    for seconds, load in steps:
        now += seconds
        elapsed += max(0.0, seconds)
        wait = limit.wait_seconds(load, now)
        assert math.isfinite(wait)
        assert wait >= 0.0
        if wait == 0.0:
            limit.take(load, now)
            passed, largest = passed + load, max(largest, load)
    assert passed <= (rate * (elapsed + 10.0) + largest) * (1 + 1e-9)
