"""The choice among keep-alive candidates: lowest cost, where late work has a price."""

from dataclasses import dataclass

from policy.keepalive.candidates import CANDIDATES, HOLD_SECONDS, SPARE_SHARES, LatePrice, Retention, cheapest
from policy.tuning import DEFAULT_TUNING as TUNING

WORK = 1000.0
PRICE = LatePrice.of(0.01, TUNING)
ALLOWED = PRICE.free_share * WORK


@dataclass(frozen=True)
class Cost:
    late_work: float = 0.0
    paid_seconds: float = 0.0


def choose(costs: dict[int, Cost], *, chosen: int = -1, young: bool = False) -> int:
    """The chosen index, where all candidates without a given cost are far too expensive."""
    every = [costs.get(index, Cost(paid_seconds=1e9)) for index in range(len(CANDIDATES))]
    late, paid = [each.late_work for each in every], [each.paid_seconds for each in every]
    return cheapest(late, paid, WORK, chosen, TUNING, price=PRICE, young=young)


def test_all_candidates_differ():
    assert len(set(CANDIDATES)) == len(CANDIDATES)


def test_late_work_beyond_the_free_share_costs_its_price():
    short, long = 0, 5
    charged = 1000.0 + 2.0 * PRICE.seconds
    costs = {short: Cost(ALLOWED + 2.0, 1000.0), long: Cost(ALLOWED, charged)}
    assert choose(costs) in (short, long)
    assert choose(costs | {long: Cost(ALLOWED, charged * 0.9)}) == long
    assert choose(costs | {long: Cost(ALLOWED, charged * (1.01 + TUNING.keepalive_switch_margin))}) == short


def test_a_young_endpoint_holds_longer_because_late_work_costs_more():
    short, long = 4, 6
    costs = {short: Cost(ALLOWED + 3.0, 1000.0), long: Cost(ALLOWED, 1500.0)}
    assert choose(costs) == short
    assert choose(costs, young=True) == long


def test_a_young_endpoint_uses_the_smallest_spare_share_at_most():
    hold, small, large = 5, *(CANDIDATES.index(Retention(90.0, spare_share=share)) for share in SPARE_SHARES)
    costs = {
        hold: Cost(ALLOWED + 10.0, 1000.0),
        small: Cost(ALLOWED + 5.0, 1200.0),
        large: Cost(0.0, 1300.0),
    }
    assert choose(costs) == large
    assert choose(costs, young=True) == small


def test_the_chosen_candidate_stays_within_the_switch_margin():
    margin = TUNING.keepalive_switch_margin
    costs = {2: Cost(0.0, 1000.0 * (1.0 + 0.9 * margin)), 4: Cost(0.0, 1000.0)}
    assert choose(costs, chosen=2) == 2
    assert choose(costs | {2: Cost(0.0, 1000.0 * (1.0 + 1.1 * margin))}, chosen=2) == 4


def test_at_equal_cost_a_plain_hold_of_at_most_five_minutes_is_chosen():
    same = dict.fromkeys(range(len(CANDIDATES)), Cost())
    assert CANDIDATES[choose(same)].is_plain
    assert CANDIDATES[choose(same)].seconds == 300.0
    long = {index: Cost() for index, each in enumerate(CANDIDATES) if each.seconds > 300.0}
    assert CANDIDATES[choose(long)].seconds == min(hold for hold in HOLD_SECONDS if hold > 300.0)
    with_extra_rules = {index: Cost() for index, each in enumerate(CANDIDATES) if not each.is_plain}
    assert not CANDIDATES[choose(with_extra_rules)].is_plain
