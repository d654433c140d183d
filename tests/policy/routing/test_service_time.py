import math
import random

from hypothesis import given
from hypothesis import strategies as st

from policy.routing.service_time import ServiceTimes
from policy.tuning import DEFAULT_TUNING


def learned(*ratios, times=100):
    service_times = ServiceTimes()
    for _ in range(times):
        for ratio in ratios:
            service_times.learn(100.0, 10.0, ratio * 10.0)
    return service_times


def test_before_any_request_ended_costs_are_right_within_a_factor_of_two():
    service_times = ServiceTimes()
    # uniform in the logarithm over [1/2, 2]: (2 - 1/2) / ln 4 = 1.08
    assert math.isclose(service_times.mean_ratio, 1.08, rel_tol=0.01)
    assert math.isclose(service_times.remaining(0.0), service_times.mean_ratio)
    assert service_times.mean_seconds == 0.0


def test_requests_that_take_half_of_their_declared_time_are_learned():
    service_times = learned(0.5, times=2000)
    assert math.isclose(service_times.mean_ratio, 0.5, rel_tol=0.1)
    assert math.isclose(service_times.mean_seconds, 5.0, rel_tol=1e-6)


def test_a_request_older_than_the_short_ones_counts_as_a_long_one():
    # half of them take 0.5 of their declared time, half take 2.0
    service_times = learned(0.5, 2.0, times=500)
    assert service_times.remaining(0.0) < 1.4
    assert 0.9 < service_times.remaining(1.0) < 1.2


def test_a_request_older_than_all_others_is_expected_to_take_a_quarter_more():
    service_times = learned(1.0)
    assert service_times.remaining(20.0) == 5.0
    assert service_times.remaining(1000.0) == 250.0


def test_a_changed_ratio_replaces_the_old_one():
    service_times = learned(0.25, times=1000)
    for _ in range(2000):
        service_times.learn(100.0, 10.0, 40.0)
    assert math.isclose(service_times.mean_ratio, 4.0, rel_tol=0.1)


def test_values_that_are_no_service_time_are_ignored():
    service_times = ServiceTimes()
    for cost, perf, seconds in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -3.0)):
        service_times.learn(cost, perf, seconds)
    assert service_times.count == 0


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6)), max_size=80),
    st.floats(0.0, 1e4),
)
def test_the_remaining_time_is_positive_and_finite_for_any_samples(ended, done):
    service_times = ServiceTimes()
    for cost, perf, seconds in ended:
        service_times.learn(cost, perf, seconds)
    assert 0.0 < service_times.remaining(done) < math.inf
    assert 0.0 < service_times.mean_ratio < math.inf


def test_the_remaining_time_matches_the_mean_of_the_samples():
    chance = random.Random(3)
    ratios = [2.0 ** chance.uniform(-1, 1) for _ in range(4000)]
    service_times = ServiceTimes()
    for ratio in ratios:
        service_times.learn(100.0, 10.0, ratio * 10.0)
    for done in (0.25, 0.6, 1.0, 1.5):
        left = [ratio - done for ratio in ratios[-1000:] if ratio > done]
        assert math.isclose(service_times.remaining(done), sum(left) / len(left), rel_tol=0.12)


def test_what_is_assumed_first_counts_as_a_few_requests():
    service_times = learned(4.0, times=16)
    prior = DEFAULT_TUNING.service_time_prior_requests
    expected = (prior * 1.08 + 16 * 4.0) / (prior + 16)
    assert math.isclose(service_times.mean_ratio, expected, rel_tol=0.05)


def test_the_mean_follows_every_sixteenth_request():
    before = ServiceTimes().mean_ratio
    assert learned(4.0, times=15).mean_ratio == before
    after = learned(4.0, times=16).mean_ratio
    assert after > before
    assert learned(4.0, times=31).mean_ratio == after
    assert learned(4.0, times=32).mean_ratio > after


def test_the_oldest_age_that_the_histogram_covers_is_one_without_longer_requests():
    service_times = learned(1.0)
    assert service_times.remaining(30.0) == 7.5
    assert math.isclose(service_times.remaining(math.nextafter(32.0, 0.0)), 8.0)
