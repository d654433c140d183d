import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.load.forecast import forecast
from policy.load.history import LoadHistory, fold, rate
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
