from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.load.forecast import forecast
from policy.load.history import LoadHistory, fold, peak_rate_yesterday, rate
from policy.tuning import Tuning
from tests.policy.builders import NOW, steady


def with_report(history, number, at, load, *, window=5.0, engine="e1", **more):
    return fold(history, engine_id=engine, sequence=number, at=at, window_s=window, load=load, **more)


def test_a_report_is_spread_over_the_buckets_that_it_covers():
    history = with_report(LoadHistory(), 1, 1000.0, 300.0, window=15)
    assert history.seconds == ((985.0, 100.0), (990.0, 100.0), (995.0, 100.0))
    assert history.minutes == ((960.0, 300.0),)
    assert (history.known_since, history.known_until) == (985.0, 1000.0)


def test_a_report_without_a_window_goes_into_one_bucket():
    history = with_report(LoadHistory(), 1, 1002.0, 50.0, window=0)
    assert history.seconds == ((1000.0, 50.0),)


def test_a_report_is_shared_by_time_and_added_to_what_arrived():
    history = with_report(LoadHistory(), 1, 1002.5, 100.0)
    assert history.seconds == ((995.0, 50.0), (1000.0, 50.0))
    history = with_report(history, 2, 1005.0, 30.0, window=2.5)
    assert history.seconds == ((995.0, 50.0), (1000.0, 80.0))
    assert with_report(LoadHistory(), 1, 1000.0, 0.5).seconds == ((995.0, 0.5),)


def test_five_minutes_of_buckets_are_kept():
    history = with_report(LoadHistory(), 1, 1000.0, 50.0)
    assert history.seconds[0] == (995.0, 50.0)
    for at, kept in ((1299.0, True), (1300.0, False)):
        for load in (0.0, 10.0):
            buckets = dict(with_report(history, 2, at, load).seconds)
            assert (995.0 in buckets) is kept, (at, load)


def test_a_report_that_is_five_minutes_late_is_not_in_the_short_history():
    history = with_report(LoadHistory(), 1, 1300.0, 10.0)
    assert with_report(history, 1, 1000.0, 50.0, engine="e2").seconds == history.seconds
    assert with_report(history, 1, 1001.0, 50.0, engine="e2").seconds == ((1000.0, 10.0), *history.seconds)


def test_nothing_waits_before_the_first_report():
    assert (LoadHistory().backlog_load, LoadHistory().backlog_requests, LoadHistory().mean_cost) == (0, 0, 0)


def test_the_last_request_and_the_beginning_are_those_of_all_engines():
    history = with_report(LoadHistory(), 1, 1000.0, 1.0, last_request_at=990.0)
    history = with_report(history, 1, 1001.0, 1.0, engine="e2", window=30.0, last_request_at=980.0)
    history = with_report(history, 2, 1005.0, 0.0)
    assert (history.last_request_at, history.known_since, history.known_until) == (990.0, 971.0, 1005.0)
    assert history.covered_seconds == 34.0


def test_the_cost_of_a_request_is_smoothed_over_two_hundred():
    history = with_report(LoadHistory(), 1, 1000.0, 100.0, requests=10)
    assert history.mean_cost == 10.0
    for load, requests, cost in ((400.0, 20, 11.0), (8000.0, 400, 20.0), (0.0, 5, 10.0), (7.0, 0, 10.0)):
        assert with_report(history, 2, 1005.0, load, requests=requests).mean_cost == pytest.approx(cost)
    assert with_report(history, 2, 1005.0, 0.5, requests=1).mean_cost == pytest.approx(10.0 - 9.5 / 200)


@pytest.mark.parametrize(("queued", "silent", "counts"), [
    (3, 25.0, True), (3, 26.0, False), (0, 180.0, True), (0, 181.0, False),
])  # fmt: skip
def test_an_engine_with_a_queue_is_gone_sooner(queued, silent, counts):
    history = with_report(LoadHistory(), 1, 1000.0, 0.0, queued_load=30.0, queued_requests=queued)
    history = with_report(history, 1, 1000.0 + silent, 0.0, engine="e2")
    assert [each.engine_id for each in history.engines] == (["e1", "e2"] if counts else ["e2"])


def test_an_older_or_repeated_report_changes_nothing():
    history = with_report(LoadHistory(), 2, 1000.0, 100.0)
    assert with_report(history, 2, 1005.0, 100.0) == history
    assert with_report(history, 1, 1005.0, 100.0) == history
    assert with_report(history, 3, 1005.0, 100.0) != history


def test_the_backlog_is_the_sum_over_engines():
    history = with_report(LoadHistory(), 1, 1000.0, 100.0, queued_load=30.0, queued_requests=3)
    history = with_report(history, 1, 1000.0, 50.0, engine="e2", queued_load=10.0, queued_requests=1)
    assert history.seconds == ((995.0, 150.0),)
    assert (history.backlog_load, history.backlog_requests) == (40.0, 4)


def test_the_queue_of_a_gone_engine_is_removed():
    history = with_report(LoadHistory(), 1, 1000.0, 0.0, queued_load=30.0, queued_requests=3)
    history = with_report(history, 1, 1181.0, 0.0, engine="e2")
    assert history.backlog_requests == 0


def test_an_engine_whose_clock_was_set_back_keeps_its_queue():
    history = with_report(LoadHistory(), 1, 9000.0, 0.0, queued_load=10.0, queued_requests=1)
    history = with_report(history, 2, 1000.0, 0.0, queued_load=30.0, queued_requests=3)
    assert history.backlog_load == 30.0


def test_zero_load_is_known_and_needs_no_buckets():
    history = LoadHistory()
    for number in range(1, 1000):
        history = with_report(history, number, 5.0 * number, 0.0)
    assert history.seconds == ()
    assert rate(history, 60) == 0.0


def test_the_history_is_bounded():
    history = LoadHistory()
    for number in range(1, 4000):
        history = with_report(history, number, 60.0 * number, 1.0, window=60)
    assert len(history.seconds) <= 61
    assert len(history.minutes) <= 121
    assert len(history.quarters) <= 193


def test_a_rate_ends_at_the_latest_report():
    history = steady(100, until=NOW)
    assert rate(history, 60) == pytest.approx(100, rel=1e-3)


def test_a_bucket_counts_as_far_as_the_window_covers_it():
    even = with_report(LoadHistory(), 1, 1000.0, 1000.0, window=100)
    for seconds in (1.0, 7.0, 12.5):
        assert rate(even, seconds, at_least=1.0) == pytest.approx(10.0)
    # three of five seconds of the last bucket are known
    partial = with_report(
        with_report(LoadHistory(), 1, 1000.0, 1000.0, window=100), 2, 1003.0, 60.0, window=3
    )
    assert rate(partial, 2.0, at_least=1.0) == pytest.approx(20.0)
    assert rate(partial, 3.0, at_least=1.0) == pytest.approx(20.0)
    assert rate(partial, 5.0) == pytest.approx((60.0 + 20.0) / 5.0)
    ahead = replace(even, seconds=(*even.seconds, (1000.0, 5.0)))
    assert rate(ahead, 10.0) == pytest.approx((100.0 + 5.0) / 10.0), "of an engine whose clock is ahead"


DAY = 86_400.0
QUARTERS = ((9000.0, 4500.0), (9900.0, 1800.0), (10_800.0, 2700.0), (11_700.0, 9000.0))


@pytest.mark.parametrize(
    ("before", "after", "peak"), [(0.0, 0.0, 2.0), (1.0, 0.0, 5.0), (0.0, 900.0, 3.0), (0.0, 1800.0, 10.0)]
)
def test_the_peak_of_yesterday_is_the_highest_quarter_of_an_hour_around_this_time(before, after, peak):
    history = LoadHistory(quarters=QUARTERS, known_since=9900.0)
    assert peak_rate_yesterday(history, 9900.0 + DAY, before=before, after=after) == peak
    for since in (9901.0, None):
        young = replace(history, known_since=since)
        assert peak_rate_yesterday(young, 9900.0 + DAY, before=before, after=after) == 0.0


def test_the_cold_capacity_follows_yesterdays_peak():
    tuning, now = Tuning(), 9900.0 + DAY
    history = LoadHistory(quarters=QUARTERS, known_since=0.0, known_until=now)
    lead = tuning.cold_pool_lead_seconds
    expected = forecast(history, now, tuning, window_seconds=60.0)
    assert expected.sustained == peak_rate_yesterday(history, now, before=lead, after=lead) > 0
    assert expected.load == 0.0


@pytest.mark.parametrize(("covered", "settled"), [(59.0, False), (60.0, True)])
def test_a_minute_of_reports_is_enough_to_scale_down(covered, settled):
    history = with_report(LoadHistory(), 1, 1000.0, 100.0, window=covered)
    expected = forecast(history, 1000.0, Tuning(), window_seconds=60.0)
    assert (expected.known, expected.settled) == (True, settled)


@pytest.mark.parametrize(("silent", "known"), [(180.0, True), (181.0, False)])
def test_the_load_is_unknown_three_minutes_after_the_last_report(silent, known):
    expected = forecast(steady(100), NOW + silent, Tuning(), window_seconds=60.0)
    assert (expected.known, expected.settled) == (known, known)
    assert expected.load == pytest.approx(100.0), "the last known level"
    assert expected.reason.endswith("in the last 60 s, last engine report 181 s ago") is not known


def test_a_seasonal_load_counts_if_it_is_higher():
    for seasonal, load in ((50.0, 100.0), (300.0, 300.0)):
        expected = forecast(steady(100), NOW, Tuning(), window_seconds=60.0, seasonal_load=seasonal)
        assert expected.load == load
        assert ("of each of the last hours" in expected.reason) is (seasonal > 100.0)
        assert (expected.rising, expected.sustained) == (100.0, 100.0)


def test_an_unknown_load_is_not_zero():
    assert rate(LoadHistory(), 60) is None


def test_a_short_history_is_averaged_over_its_own_length():
    # 200 load in the first 10 s of an endpoint are 20 load/s, not 200 / 60.
    assert rate(with_report(LoadHistory(), 1, 1000.0, 200.0, window=10), 60) == pytest.approx(20)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 1e6)), min_size=1, max_size=40),
    st.floats(1e6, 1e6 + 100),
)
def test_no_load_is_lost_or_invented(batches, start):
    history, at = LoadHistory(), start
    for number, (window, load) in enumerate(batches, 1):
        at += window
        history = with_report(history, number, at, load, window=window)
    total = sum(load for _, load in batches)
    assert sum(load for _, load in history.minutes) == pytest.approx(total, abs=0.01 * len(batches))


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0.0, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_clock_value_is_processed_quickly(at, window, later):
    history = with_report(LoadHistory(), 1, at, 10.0, window=window)
    history = with_report(history, 2, later, 10.0, window=window)
    assert all(len(series) <= 300 for series in (history.seconds, history.minutes, history.quarters))


def test_growth_is_detected_before_the_minute_window_follows():
    history = steady(100, until=NOW - 15)
    history = fold(history, engine_id="e1", sequence=2, at=NOW, window_s=15, load=15 * 1000)
    expected = forecast(history, NOW, Tuning(), window_seconds=60.0)
    # 1000 in the short window, 325 in the minute.
    assert expected.burst
    assert expected.load == pytest.approx(325, rel=1e-2)
    assert expected.rising == pytest.approx(1000, rel=1e-2)
    assert "burst: 1000 load/s in 15 s, 325 in 60 s" in expected.reason


def test_jitter_is_not_a_burst():
    history = steady(100, until=NOW - 15)
    history = fold(history, engine_id="e1", sequence=2, at=NOW, window_s=15, load=15 * 110)
    expected = forecast(history, NOW, Tuning(), window_seconds=60.0)
    assert not expected.burst
    assert expected.load == pytest.approx(102.5, rel=1e-2)
