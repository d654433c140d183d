"""The load history as known at an earlier time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.whatif.past_load import arrived, as_of
from policy.load.history import LoadHistory, fold, rate
from tests.policy.builders import NOW


def history_of(rates: list[float]) -> LoadHistory:
    """One rate per 5 s, told as they came."""
    history = LoadHistory()
    for number, level in enumerate(rates, start=1):
        at = NOW + number * 5.0
        history = fold(
            history,
            engine_id="e",
            sequence=number,
            at=at,
            window_s=5.0,
            load=level * 5.0,
            requests=1,
            last_request_at=at if level else None,
        )
    return history


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1000), min_size=20, max_size=80), st.integers(1, 50))
def test_the_past_load_is_the_load_that_was_known_then(rates: list[float], back: int) -> None:
    back = min(back, len(rates) - 1)
    now, then = history_of(rates), history_of(rates[: len(rates) - back])
    seen = as_of(now, then.known_until)
    for window in (10.0, 30.0, 60.0):
        # load older than five minutes is stored per minute
        if (back * 5 + window) <= 290:
            assert rate(seen, window) == pytest.approx(rate(then, window), abs=1e-2)
    assert seen.known_until == then.known_until
    assert sum(load for _, load in seen.minutes) <= sum(load for _, load in now.minutes) + 1e-6


def test_what_came_after_is_not_known() -> None:
    history = history_of([0.0] * 20 + [500.0] * 4)
    assert rate(as_of(history, NOW + 100.0), 60.0) == 0.0
    assert as_of(history, NOW + 100.0).last_request_at is None
    assert as_of(history, NOW + 110.0).last_request_at == NOW + 110.0


def test_the_present_is_the_history_itself() -> None:
    history = history_of([10.0] * 5)
    assert as_of(history, NOW + 25.0) is history
    assert as_of(LoadHistory(), NOW) == LoadHistory()


def test_arrivals_between_two_moments_add_up_and_overlap_nothing() -> None:
    history = history_of([100.0] * 50)
    assert arrived(history, NOW + 100.0, NOW + 150.0) == pytest.approx(5000.0)
    parts = [arrived(history, NOW + 100.0 + step, NOW + 107.0 + step) for step in range(0, 70, 7)]
    assert sum(parts) == pytest.approx(arrived(history, NOW + 100.0, NOW + 170.0))
    assert arrived(history, NOW + 300.0, NOW + 400.0) == 0.0


def test_older_than_five_minutes_a_minute_counts_as_spread_evenly() -> None:
    history = history_of([100.0] * 200)  # 1,000 s
    assert arrived(history, NOW + 240.0, NOW + 300.0) == pytest.approx(6000.0, rel=0.01)


def test_a_minute_without_details_counts_in_its_own_time_only() -> None:
    # a minute of load from NOW + 20 on, then seven and a half minutes without
    history = history_of([0.0] * 4 + [120.0] * 12 + [0.0] * 90 + [50.0] * 2)
    for start, end, load in ((-40, 20, 0.0), (20, 50, 3600.0), (50, 80, 3600.0), (80, 140, 0.0)):
        assert arrived(history, NOW + start, NOW + end) == pytest.approx(load)


def test_the_last_request_before_a_long_pause_came_within_its_minute() -> None:
    history = history_of([0.0] * 4 + [120.0] * 12 + [0.0] * 90 + [50.0] * 2)
    assert as_of(history, NOW + 500.0).last_request_at == NOW + 80.0
    assert as_of(history, NOW + 60.0).last_request_at == NOW + 60.0
