"""Which way of holding is used: what the books promise, held against what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.tuning import DEFAULT_TUNING as TUNING
from policy.ways import FRESH, HOLDS, SPARES, WAYS, Trial, Way, cheapest, correction

WORK = 1000.0
ALLOWED = TUNING.late_share_max * WORK


def books(late: float, paid: float) -> Trial:
    return (0.0, 0.0, late, paid, 0)


def choose(
    way_books: dict[int, Trial], *, chosen: int = -1, corrected: float = 1.0, young: bool = False
) -> int:
    """The way that is chosen where all others cost far too much."""
    trials = [way_books.get(number, books(0.0, 1e9)) for number in range(len(WAYS))]
    return cheapest(tuple(trials), WORK, chosen, TUNING, corrected, young=young)


def test_no_two_ways_are_the_same():
    assert len(set(WAYS)) == len(WAYS)


def test_a_promise_that_was_kept_is_believed_as_it_is():
    assert correction(5.0, 5.0, WORK, TUNING) == 1.0
    assert correction(0.0, 0.0, WORK, TUNING) == 1.0
    assert correction(0.0, 0.0, 0.0, TUNING) == 1.0


def test_more_late_work_than_was_promised_makes_all_promises_worth_less():
    # 13 measured and 3 promised of 1,000, two of doubt each: three times
    assert correction(13.0, 3.0, WORK, TUNING) == pytest.approx(3.0)
    assert correction(13.0, 8.0, WORK, TUNING) == pytest.approx(1.5)


def test_what_keeps_the_limit_as_measured_needs_no_correction_whatever_the_books_promised():
    limit = TUNING.late_share_measured_max * WORK
    assert correction(limit, 0.0, WORK, TUNING) == 1.0
    assert correction(limit + 0.1, 0.0, WORK, TUNING) > 2.0


def test_only_who_keeps_the_limit_is_taken_to_be_better_than_its_books():
    assert correction(ALLOWED, 18.0, WORK, TUNING) < 1.0
    assert correction(ALLOWED + 1.0, 18.0, WORK, TUNING) == 1.0


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9), st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_the_correction_is_bounded_and_grows_with_what_was_late(measured, more, promised, work):
    one, worse = (correction(late, promised, work, TUNING) for late in (measured, measured + more))
    assert TUNING.late_correction_min <= one <= worse <= TUNING.late_correction_max


def test_what_is_late_beyond_the_limit_is_charged_at_its_price():
    short, long = 0, 5
    held = {short: books(ALLOWED + 2.0, 1000.0), long: books(ALLOWED, 1000.0 + 2.0 * TUNING.late_price)}
    assert choose(held) in (short, long)
    assert choose(held | {long: books(ALLOWED, 1100.0)}) == long
    assert choose(held | {long: books(ALLOWED, 1300.0)}) == short


def test_a_spare_is_chosen_when_the_promises_turn_out_to_be_too_good():
    hold, spare = 5, next(number for number, way in enumerate(WAYS) if way.spare > 0)
    held = {hold: books(4.0, 1000.0), spare: books(1.0, 1300.0)}
    assert choose(held) == hold
    assert choose(held, corrected=3.0) == spare


def test_to_a_young_endpoint_late_work_is_dearer_so_it_holds_for_longer():
    short, long = 4, 6
    held = {short: books(ALLOWED + 3.0, 1000.0), long: books(ALLOWED, 1500.0)}
    assert choose(held) == short
    assert choose(held, young=True) == long


def test_a_young_endpoint_keeps_the_smallest_spare_at_most_for_having_grown_from_nothing():
    hold, small, large = 5, *(WAYS.index(Way(90.0, spare=spare)) for spare in SPARES)
    grown = {
        hold: books(ALLOWED + 10.0, 1000.0),
        small: books(ALLOWED + 5.0, 1200.0),
        large: books(0.0, 1300.0),
    }
    assert choose(grown) == large
    assert choose(grown, young=True) == small


def test_what_is_in_use_stays_while_it_is_about_as_cheap():
    held = {2: books(0.0, 1010.0), 4: books(0.0, 1000.0)}
    assert choose(held, chosen=2) == 2
    assert choose(held | {2: books(0.0, 1030.0)}, chosen=2) == 4


def test_of_ways_that_cost_the_same_a_plain_hold_of_five_minutes_at_most_is_taken():
    same = dict.fromkeys(range(len(WAYS)), FRESH)
    assert WAYS[choose(same)].plain
    assert WAYS[choose(same)].seconds == 300.0
    long = {number: FRESH for number, way in enumerate(WAYS) if way.seconds > 300.0}
    assert WAYS[choose(long)].seconds == min(hold for hold in HOLDS if hold > 300.0)
    fancy = {number: FRESH for number, way in enumerate(WAYS) if not way.plain}
    assert not WAYS[choose(fancy)].plain
