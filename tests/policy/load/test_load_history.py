import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.load.forecast import forecast
from policy.load.history import LoadHistory, fold, rate
from policy.tuning import Tuning
from tests.policy.builders import NOW, steady


def told(history, number, at, load, *, window=5.0, engine="e1", **more):
    return fold(history, engine_id=engine, sequence=number, at=at, window_s=window, load=load, **more)


def test_a_batch_is_spread_over_the_buckets_that_it_covers():
    history = told(LoadHistory(), 1, 1000.0, 300.0, window=15)
    assert history.seconds == ((985.0, 100.0), (990.0, 100.0), (995.0, 100.0))
    assert history.minutes == ((960.0, 300.0),)
    assert (history.known_since, history.known_until) == (985.0, 1000.0)


def test_a_batch_without_a_window_lands_in_the_bucket_of_its_moment():
    history = told(LoadHistory(), 1, 1002.0, 50.0, window=0)
    assert history.seconds == ((1000.0, 50.0),)


def test_an_older_or_doubled_batch_changes_nothing():
    history = told(LoadHistory(), 2, 1000.0, 100.0)
    assert told(history, 2, 1005.0, 100.0) == history
    assert told(history, 1, 1005.0, 100.0) == history
    assert told(history, 3, 1005.0, 100.0) != history


def test_engines_are_added_up():
    history = told(LoadHistory(), 1, 1000.0, 100.0, queued_load=30.0, queued_requests=3, oldest_wait_s=4.0)
    history = told(
        history, 1, 1000.0, 50.0, engine="e2", queued_load=10.0, queued_requests=1, oldest_wait_s=9.0
    )
    assert history.seconds == ((995.0, 150.0),)
    assert (history.backlog_load, history.backlog_requests, history.oldest_wait_s) == (40.0, 4, 9.0)


def test_the_queue_of_an_engine_that_is_gone_is_gone():
    history = told(LoadHistory(), 1, 1000.0, 0.0, queued_load=30.0, queued_requests=3)
    history = told(history, 1, 1181.0, 0.0, engine="e2")
    assert history.backlog_requests == 0


def test_an_engine_whose_clock_was_set_back_keeps_its_queue():
    history = told(LoadHistory(), 1, 9000.0, 0.0, queued_load=10.0, queued_requests=1)
    history = told(history, 2, 1000.0, 0.0, queued_load=30.0, queued_requests=3)
    assert history.backlog_load == 30.0


def test_calm_is_known_and_takes_no_room():
    history = LoadHistory()
    for number in range(1, 1000):
        history = told(history, number, 5.0 * number, 0.0)
    assert history.seconds == ()
    assert rate(history, 60) == 0.0


def test_the_history_is_bounded():
    history = LoadHistory()
    for number in range(1, 4000):
        history = told(history, number, 60.0 * number, 1.0, window=60)
    assert len(history.seconds) <= 61
    assert len(history.minutes) <= 121
    assert len(history.quarters) <= 193


def test_a_rate_ends_where_knowledge_ends():
    history = steady(100, until=NOW)
    assert rate(history, 60) == pytest.approx(100, rel=1e-3)


def test_nothing_known_is_not_zero():
    assert rate(LoadHistory(), 60) is None


def test_a_short_history_is_averaged_over_its_own_length():
    # 200 load in the first 10 s of an endpoint's life are 20 load/s, not 200 / 60
    assert rate(told(LoadHistory(), 1, 1000.0, 200.0, window=10), 60) == pytest.approx(20)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 1e6)), min_size=1, max_size=40),
    st.floats(1e6, 1e6 + 100),
)
def test_no_load_is_lost_or_invented(batches, start):
    history, at = LoadHistory(), start
    for number, (window, load) in enumerate(batches, 1):
        at += window
        history = told(history, number, at, load, window=window)
    total = sum(load for _, load in batches)
    assert sum(load for _, load in history.minutes) == pytest.approx(total, abs=0.01 * len(batches))


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0.0, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_the_clocks_say_a_batch_is_folded_in_a_moment(at, window, later):
    history = told(LoadHistory(), 1, at, 10.0, window=window)
    history = told(history, 2, later, 10.0, window=window)
    assert all(len(series) <= 300 for series in (history.seconds, history.minutes, history.quarters))


def test_growth_is_seen_before_the_minute_has_caught_up():
    history = steady(100, until=NOW - 15)
    history = fold(history, engine_id="e1", sequence=2, at=NOW, window_s=15, load=15 * 1000)
    expected = forecast(history, NOW, Tuning(), window_seconds=60.0)
    # 1000 in the short window; the minute says 325
    assert expected.burst
    assert expected.load == pytest.approx(325, rel=1e-2)
    assert expected.rising == pytest.approx(1000, rel=1e-2)
    assert "burst: 1000 load/s in 15 s, 325 in 60 s" in expected.reason


def test_jitter_is_no_burst():
    history = steady(100, until=NOW - 15)
    history = fold(history, engine_id="e1", sequence=2, at=NOW, window_s=15, load=15 * 110)
    expected = forecast(history, NOW, Tuning(), window_seconds=60.0)
    assert not expected.burst
    assert expected.load == pytest.approx(102.5, rel=1e-2)
