from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from policy.capacity.budget import BudgetTracker, counted_dollars_per_hour
from stoker_wire.states import WorkerState as S
from tests.policy.builders import BOOTING, COLD, brief, decide, draining, endpoint, offer, offers, see, worker

states = st.sampled_from([S.READY, COLD, BOOTING, S.STOPPING, S.ERROR])
prices = st.floats(0.0, 50.0) | st.just(1e300)


@given(st.lists(st.tuples(states, prices, states, prices), max_size=30))
def test_the_tracked_rest_equals_a_fresh_sum(changes):
    """A running sum of floats would accumulate rounding errors."""
    before = [worker(f"w{number}", state, price=price) for number, (state, price, _, _) in enumerate(changes)]
    after = [worker(f"w{number}", state, price=price) for number, (_, _, state, price) in enumerate(changes)]
    purse = BudgetTracker.of(20.0, before)
    for old, new in zip(before, after, strict=True):
        purse.exchange(old, new)
    fresh = BudgetTracker.of(20.0, after)
    assert (purse.left, purse.left_after_drains) == (fresh.left, fresh.left_after_drains)


def test_draining_workers_count_until_they_have_stopped():
    purse = BudgetTracker.of(1.0, [worker("hot"), draining("leaving")])
    assert (purse.left, purse.left_after_drains) == (0.4, 0.69)
    assert purse.affords(0.4)
    assert not purse.affords(0.41)
    assert purse.affords(0.5, instead_of=0.1)
    assert purse.affords(0.69, after_drains=True)


def test_a_change_is_allowed_within_the_budget_or_if_it_costs_no_more():
    tracker, hot, dear = BudgetTracker.of(0.5, [worker("hot")]), worker("hot"), worker("dear", price=0.6)
    assert (tracker.committed_with(None, worker("more")), tracker.committed_with(hot, dear)) == (0.6, 0.6)
    assert tracker.allows(None, worker("small", price=0.2))
    assert not tracker.allows(None, worker("large", price=0.21))
    exceeded = BudgetTracker.of(0.5, [dear])
    assert exceeded.allows(dear, worker("same", price=0.6))
    assert not exceeded.allows(dear, worker("more", price=0.61))


def test_a_budget_is_used_to_the_cent():
    """In floats, 0.5 - 0.1 - 0.1 - 0.1 - 0.1 is less than 0.1."""
    found = offers(*(offer(number, price=0.1) for number in range(1, 9)))
    decided = decide(see(config=endpoint(min_workers=8, dollars_per_hour_max=0.5), offers=(found,)))
    assert brief(decided) == [f"recruit 1x RTX 4090 {number}" for number in range(1, 6)]


def test_an_absurd_price_does_not_break_planning():
    found = offers(offer(1, price=1e308), offer(2, price=0.3))
    seen = see(worker("cold", COLD, price=1e308), offers=(found,), config=endpoint(min_workers=3))
    assert brief(decide(seen)) == ["recruit 1x RTX 4090 2", "recruit 1x RTX 4090 1"]
    bounded = replace(seen, config=endpoint(min_workers=3, dollars_per_hour_max=1e6))
    assert brief(decide(bounded))[0] == "recruit 1x RTX 4090 2"


def test_a_broken_worker_counts_with_its_disk_once_its_machine_has_stopped():
    broken = worker("w1", S.ERROR, price=2.0, market_status="running")
    assert counted_dollars_per_hour(broken) == 2.0
    assert counted_dollars_per_hour(broken.replace(market_status="stopped")) == 0.01
