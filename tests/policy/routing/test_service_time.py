import math
import random

from hypothesis import given
from hypothesis import strategies as st

from policy.routing.service_time import ServiceTimes


def learned(*ratios, times=100):
    lengths = ServiceTimes()
    for _ in range(times):
        for ratio in ratios:
            lengths.learn(100.0, 10.0, ratio * 10.0)
    return lengths


def test_before_anything_has_ended_costs_are_right_within_two():
    lengths = ServiceTimes()
    # even in the logarithm over [1/2, 2]: (2 - 1/2) / ln 4 = 1.08
    assert math.isclose(lengths.mean, 1.08, rel_tol=0.01)
    assert math.isclose(lengths.remaining(0.0), lengths.mean)
    assert lengths.seconds == 0.0


def test_requests_that_take_half_of_what_they_declare_are_expected_to():
    lengths = learned(0.5, times=2000)
    assert math.isclose(lengths.mean, 0.5, rel_tol=0.1)
    assert math.isclose(lengths.seconds, 5.0, rel_tol=1e-6)


def test_one_that_outlived_the_short_ones_is_one_of_the_long_ones():
    # half of them end at 0.5 of what they declare, half at 2.0
    lengths = learned(0.5, 2.0, times=500)
    assert lengths.remaining(0.0) < 1.4
    assert 0.9 < lengths.remaining(1.0) < 1.2


def test_one_that_outlived_all_others_is_not_believed_to_end_at_once():
    lengths = learned(1.0)
    assert lengths.remaining(20.0) == 5.0
    assert lengths.remaining(1000.0) == 250.0


def test_what_changed_is_learned_anew():
    lengths = learned(0.25, times=1000)
    for _ in range(2000):
        lengths.learn(100.0, 10.0, 40.0)
    assert math.isclose(lengths.mean, 4.0, rel_tol=0.1)


def test_what_cannot_be_a_time_is_not_learned_from():
    lengths = ServiceTimes()
    for cost, perf, seconds in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -3.0)):
        lengths.learn(cost, perf, seconds)
    assert lengths.count == 0


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6)), max_size=80),
    st.floats(0.0, 1e4),
)
def test_whatever_was_learned_what_remains_is_positive_and_finite(ended, done):
    lengths = ServiceTimes()
    for cost, perf, seconds in ended:
        lengths.learn(cost, perf, seconds)
    assert 0.0 < lengths.remaining(done) < math.inf
    assert 0.0 < lengths.mean < math.inf


def test_the_remaining_time_is_that_of_the_requests_themselves():
    chance = random.Random(3)
    ratios = [2.0 ** chance.uniform(-1, 1) for _ in range(4000)]
    lengths = ServiceTimes()
    for ratio in ratios:
        lengths.learn(100.0, 10.0, ratio * 10.0)
    for done in (0.25, 0.6, 1.0, 1.5):
        left = [ratio - done for ratio in ratios[-1000:] if ratio > done]
        assert math.isclose(lengths.remaining(done), sum(left) / len(left), rel_tol=0.12)
