"""Load that comes at the same minute of every hour."""

import pytest

from policy.load.seasonality import SEASON_MINUTES, next_rise, seasonal_level
from policy.tuning import DEFAULT_TUNING

NOW_MINUTE = 1000
NOW = NOW_MINUTE * 60.0
LEAD = 45.0


def recorded(loads: dict[int, float], base: float = 0.0) -> list[float]:
    """The demand of each minute, given as minutes relative to now."""
    found = [base] * SEASON_MINUTES
    for minute, load in loads.items():
        found[(NOW_MINUTE + minute) % SEASON_MINUTES] = load
    return found


def level(loads: dict[int, float], lead: float = LEAD) -> float:
    return seasonal_level(recorded(loads), NOW, lead, DEFAULT_TUNING)


def rise(loads: dict[int, float], *, base: float = 0.0, lead: float = LEAD, now: float = NOW) -> float | None:
    """Seconds from `NOW` to the next rise."""
    at = next_rise(recorded(loads, base), now, lead, DEFAULT_TUNING)
    return None if at is None else at - NOW


def test_the_lower_of_the_last_two_hours_is_expected_again():
    assert level({-60: 300.0, -59: 200.0, -120: 100.0}) == 100.0
    assert level({-60: 100.0, -120: 250.0, -119: 300.0}) == 100.0
    assert level({-60: 100.0}) == level({-120: 100.0}) == 0.0, "once is no season"
    assert level({-60: 0.5, -120: 0.5}) == 0.5


def test_a_minute_more_on_each_side_counts():
    assert level({-61: 5.0, -119: 7.0}) == 5.0
    assert level({-62: 5.0, -119: 7.0}) == level({-61: 5.0, -118: 7.0}) == 0.0


def test_a_longer_lead_looks_further_ahead_and_not_later_back():
    assert level({-56: 5.0, -116: 5.0}, lead=200.0) == 5.0
    assert level({-55: 5.0, -115: 5.0}, lead=200.0) == 0.0
    assert level({-61: 5.0, -121: 5.0}, lead=200.0) == 5.0


@pytest.mark.parametrize(("lead", "seconds"), [(45.0, 495.0), (100.0, 440.0)])
def test_the_next_rise_is_when_the_load_comes_into_the_window(lead, seconds):
    # minute 10 begins at 600 s; the window reaches the lead and one minute ahead, from a minute's border on
    assert rise({-50: 400.0, -110: 400.0}, lead=lead) == seconds


def test_a_rise_by_a_quarter_or_less_is_none():
    assert rise({-50: 125.0, -110: 125.0}, base=100.0) is None
    assert rise({-50: 126.0, -110: 126.0}, base=100.0) == 495.0
    steps = {-50: 120.0, -110: 120.0, -49: 145.0, -109: 145.0}
    assert rise(steps, base=100.0) is None, "each step is compared with the one before"


def test_a_rise_is_looked_for_within_an_hour():
    assert rise({1: 400.0, -59: 400.0}) == 59 * 60 + 15.0
    assert rise({2: 400.0, -58: 400.0}) is None


def test_a_rise_that_has_happened_is_not_the_next_one():
    assert rise({-58: 400.0, -118: 400.0}, now=NOW + 10.0) == 15.0
    assert rise({-58: 400.0, -118: 400.0}, now=NOW + 30.0) is None


def test_nothing_is_expected_without_a_history():
    assert seasonal_level((), NOW, LEAD, DEFAULT_TUNING) == 0.0
    assert next_rise((), NOW, LEAD, DEFAULT_TUNING) is None
