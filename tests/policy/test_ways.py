"""Which way of holding is used: what the books promise, held against what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.tuning import DEFAULT_TUNING as TUNING
from policy.ways import (
    FRESH,
    HOLDS,
    SPARES,
    WAYS,
    Trial,
    Way,
    allowed_late,
    cheapest,
    correction,
    with_habit_learned,
)

WORK = 1000.0
ALLOWED = TUNING.late_share_max * WORK


def books(late: float, paid: float) -> Trial:
    return (0.0, 0.0, late, paid, 0)


def choose(
    way_books: dict[int, Trial],
    *,
    chosen: int = -1,
    corrected: float = 1.0,
    allowed: float | None = None,
    young: bool = False,
) -> int:
    """The way that is chosen where all others cost far too much."""
    trials = [way_books.get(number, books(0.0, 1e9)) for number in range(len(WAYS))]
    return cheapest(tuple(trials), WORK, chosen, TUNING, corrected, allowed=allowed, young=young)


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
    charged = 1000.0 + 2.0 * TUNING.late_price
    held = {short: books(ALLOWED + 2.0, 1000.0), long: books(ALLOWED, charged)}
    assert choose(held) in (short, long)
    assert choose(held | {long: books(ALLOWED, charged * 0.9)}) == long
    assert choose(held | {long: books(ALLOWED, charged * (1.01 + TUNING.experience_margin))}) == short


def test_what_was_late_beyond_the_limit_is_repaid_and_what_was_not_may_be_spent():
    limit = TUNING.late_share_max
    assert allowed_late(ALLOWED, WORK, TUNING) == pytest.approx(limit)
    assert allowed_late(0.5 * ALLOWED, WORK, TUNING) == pytest.approx(
        limit * (1.0 + 0.5 * TUNING.late_credit_weight)
    )
    assert allowed_late(1.2 * ALLOWED, WORK, TUNING) == pytest.approx(
        limit * (1.0 - 0.2 * TUNING.late_debt_weight)
    )
    assert allowed_late(0.0, 0.0, TUNING) == limit


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9), st.floats(1e-3, 1e9))
def test_the_more_was_late_the_less_may_be(measured, more, work):
    one, worse = (allowed_late(late, work, TUNING) for late in (measured, measured + more))
    assert TUNING.late_share_min <= worse <= one <= TUNING.late_share_max * (1.0 + TUNING.late_credit_weight)


def test_who_was_late_too_often_takes_the_dearer_way_that_its_limit_alone_would_not_ask_for():
    short, long = 4, 6
    held = {short: books(ALLOWED, 1000.0), long: books(0.2 * ALLOWED, 1200.0)}
    assert choose(held) == short
    assert choose(held, allowed=allowed_late(1.5 * ALLOWED, WORK, TUNING)) == long


SUNK_LATE, SUNK_PAID = 500.0, 1000.0
"""Of the first two hours, in which nobody could have a habit."""


def hourly(*, habit_late: float, habit_paid: float) -> tuple[Trial, ...]:
    """Books in which all ways but those with the habit were as late since there can be one as before, and paid as much."""
    trials = [books(2 * SUNK_LATE, 2 * SUNK_PAID) for _ in WAYS]
    for number, way in enumerate(WAYS):
        if way.habit:
            trials[number] = books(SUNK_LATE + habit_late, SUNK_PAID + habit_paid)
    return tuple(trials)


SUNK = tuple((SUNK_LATE, SUNK_PAID) for _ in HOLDS)
HABITS = [number for number, way in enumerate(WAYS) if way.habit]
OTHERS = [number for number, way in enumerate(WAYS) if not way.habit]


def test_a_habit_is_judged_by_what_came_since_there_can_be_one():
    learned = with_habit_learned(hourly(habit_late=0.0, habit_paid=1200.0), SUNK, WORK, TUNING)
    for number in HABITS:
        assert learned[number][2] < 10.0, "it saves all, so it would have saved all before"
        assert learned[number][3] == pytest.approx(2400.0, rel=0.01), "for a fifth more, before, too"


def test_a_habit_that_saves_nothing_is_judged_as_if_there_were_none():
    trials = hourly(habit_late=SUNK_LATE, habit_paid=SUNK_PAID)
    assert with_habit_learned(trials, SUNK, WORK, TUNING) == trials


def test_of_a_habit_that_nothing_happened_to_nothing_is_known():
    trials = tuple(books(SUNK_LATE, SUNK_PAID) for _ in WAYS)
    assert with_habit_learned(trials, SUNK, WORK, TUNING) == trials
    assert with_habit_learned(trials, (), WORK, TUNING) is trials
    assert with_habit_learned(trials, SUNK[:-1], WORK, TUNING) is trials, "of a version with other holds"


@given(st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_what_a_habit_saves_changes_its_own_books_only_and_never_below_what_it_was_late_itself(late, paid):
    trials = hourly(habit_late=late, habit_paid=paid)
    learned = with_habit_learned(trials, SUNK, WORK, TUNING)
    assert [learned[number] for number in OTHERS] == [trials[number] for number in OTHERS]
    for number in HABITS:
        assert late - 1e-6 <= learned[number][2] <= trials[number][2] + 1e-6
        assert learned[number][3] >= trials[number][3] - 1e-6


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
    margin = TUNING.experience_margin
    held = {2: books(0.0, 1000.0 * (1.0 + 0.9 * margin)), 4: books(0.0, 1000.0)}
    assert choose(held, chosen=2) == 2
    assert choose(held | {2: books(0.0, 1000.0 * (1.0 + 1.1 * margin))}, chosen=2) == 4


def test_of_ways_that_cost_the_same_a_plain_hold_of_five_minutes_at_most_is_taken():
    same = dict.fromkeys(range(len(WAYS)), FRESH)
    assert WAYS[choose(same)].plain
    assert WAYS[choose(same)].seconds == 300.0
    long = {number: FRESH for number, way in enumerate(WAYS) if way.seconds > 300.0}
    assert WAYS[choose(long)].seconds == min(hold for hold in HOLDS if hold > 300.0)
    fancy = {number: FRESH for number, way in enumerate(WAYS) if not way.plain}
    assert not WAYS[choose(fancy)].plain
