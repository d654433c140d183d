"""Which way of holding capacity is used: the cheapest that keeps late work within its limit."""

from policy.keepalive.candidates import (
    FRESH,
    HOLDS,
    SPARES,
    WAYS,
    Candidate,
    Trial,
    cheapest,
)
from policy.tuning import DEFAULT_TUNING as TUNING

WORK = 1000.0
ALLOWED = TUNING.late_share_max * WORK


def books(late: float, paid: float) -> Trial:
    return (0.0, 0.0, late, paid, 0)


def choose(
    way_books: dict[int, Trial],
    *,
    chosen: int = -1,
    young: bool = False,
) -> int:
    """The way that is chosen where all others cost far too much."""
    trials = [way_books.get(number, books(0.0, 1e9)) for number in range(len(WAYS))]
    return cheapest(tuple(trials), WORK, chosen, TUNING, young=young)


def test_no_two_ways_are_the_same():
    assert len(set(WAYS)) == len(WAYS)


def test_what_is_late_beyond_the_limit_is_charged_at_its_price():
    short, long = 0, 5
    charged = 1000.0 + 2.0 * TUNING.late_price
    held = {short: books(ALLOWED + 2.0, 1000.0), long: books(ALLOWED, charged)}
    assert choose(held) in (short, long)
    assert choose(held | {long: books(ALLOWED, charged * 0.9)}) == long
    assert choose(held | {long: books(ALLOWED, charged * (1.01 + TUNING.experience_margin))}) == short


def test_to_a_young_endpoint_late_work_is_dearer_so_it_holds_for_longer():
    short, long = 4, 6
    held = {short: books(ALLOWED + 3.0, 1000.0), long: books(ALLOWED, 1500.0)}
    assert choose(held) == short
    assert choose(held, young=True) == long


def test_a_young_endpoint_keeps_the_smallest_spare_at_most_for_having_grown_from_nothing():
    hold, small, large = 5, *(WAYS.index(Candidate(90.0, spare=spare)) for spare in SPARES)
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
