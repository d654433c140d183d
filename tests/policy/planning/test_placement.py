"""The order in which offers are worth renting."""

from itertools import pairwise

import pytest

from policy.capacity.performance import PerfEstimates
from policy.planning.placement import Ranking, kinds_tried, price_performance
from policy.state.worker import HostBoot, KindRecord, MachineStats
from tests.policy.builders import group, offer, offers, worker


def kind(name: str, perf: float = 0.0, **given: object) -> KindRecord:
    fields = {"samples": 1 if perf else 0} | given
    return KindRecord(workergroup_id=1, kind=f"1x {name}", perf=perf, **fields)


def taken(
    *listed, need=1000.0, kinds=(), hosts=(), workers=(), test_workers=0, eligible=lambda _: True
) -> list[int]:
    """Ids of the offers in the order in which they are taken."""
    learned = MachineStats(kinds=tuple(kinds), hosts=tuple(hosts))
    ranking = Ranking.of(
        (group(1, test_workers=test_workers),),
        (offers(*listed),),
        perfs=PerfEstimates.of(workers, learned),
        workers=workers,
    )
    order = []
    while (best := ranking.take(need, eligible)) is not None:
        order.append(best.offer.id)
        need -= best.perf
    return order


FAST, SLOW = kind("fast", 400.0), kind("slow", 100.0)


def test_the_best_perf_for_the_money_comes_first():
    # 400 / 1.0 = 400 load/s per $/h, 100 / 0.2 = 500
    assert taken(offer(1, "fast", 1.0), offer(2, "slow", 0.2), kinds=(FAST, SLOW)) == [2, 1]
    assert taken(offer(1, "fast", 0.7), offer(2, "slow", 0.2), kinds=(FAST, SLOW)) == [1, 2]


def test_only_the_perf_that_is_still_needed_counts():
    assert taken(offer(1, "fast", 0.7), offer(2, "slow", 0.2), kinds=(FAST, SLOW), need=130.0) == [2, 1]
    # after the first one 30 load/s are needed, and the small one gives them for less
    listed = (offer(1, "fast", 0.7), offer(2, "fast", 0.71), offer(3, "slow", 0.2))
    assert taken(*listed, kinds=(FAST, SLOW), need=430.0) == [1, 3, 2]


def test_any_perf_counts_when_nothing_is_needed():
    listed = (offer(1, "fast", 0.7), offer(2, "slow", 0.2))
    assert taken(*listed, kinds=(FAST, SLOW), need=0.0) == [1, 2]
    assert taken(*listed, kinds=(FAST, SLOW), need=0.5) == [2, 1], "half a unit costs least on the cheap one"


def test_the_last_offer_for_a_need_below_one_is_followed_by_the_best_of_all():
    listed = (offer(1, "fast", 0.7), offer(2, "slow", 0.2), offer(3, "slow", 0.21))
    assert taken(*listed, kinds=(FAST, SLOW), need=0.5) == [2, 1, 3]


def test_perf_below_one_counts_like_any_other():
    small, tiny = kind("small", 0.8), kind("tiny", 0.4)
    assert taken(offer(1, "tiny", 0.3), offer(2, "small", 0.3), kinds=(small, tiny), need=0.4) == [1, 2]
    assert taken(offer(1, "tiny", 0.3), offer(2, "small", 0.3), kinds=(small, tiny), need=0.8) == [2, 1]


def test_the_cheapest_offer_is_taken_while_no_perf_is_known():
    assert taken(offer(1, price=0.5), offer(2, price=0.3), offer(3, price=0.4)) == [2, 3, 1]


def test_equal_offers_are_taken_by_price_and_then_by_id():
    twice = kind("twice", 800.0)
    listed = (offer(1, "twice", 1.4), offer(2, "fast", 0.7))
    assert taken(*listed, kinds=(twice, FAST), need=5000.0) == [2, 1]
    assert taken(offer(7, "fast"), offer(5, "fast"), offer(6, "fast"), kinds=(FAST,)) == [5, 6, 7]


def test_a_free_offer_is_possible():
    assert taken(offer(1, price=0.0), offer(2, price=0.1)) == [1, 2]


def test_an_unknown_kind_is_rated_by_its_benchmark_on_the_marketplace():
    # fast has 400 load/s at dlperf 100; so 150 are worth 600
    listed = (offer(1, "fast", 0.4, dlperf=100.0), offer(2, "new", 0.4, dlperf=150.0))
    assert taken(*listed, kinds=(FAST,)) == [2, 1]
    listed = (offer(1, "fast", 0.4, dlperf=100.0), offer(2, "new", 0.4, dlperf=50.0))
    assert taken(*listed, kinds=(FAST,)) == [1, 2]


def test_new_kinds_come_first_while_few_were_tried():
    listed = (offer(1, "fast", 0.4), offer(2, "new", 9.0), offer(3, "other", 8.0))
    assert taken(*listed, kinds=(FAST,), test_workers=3) == [3, 2, 1]
    assert taken(*listed, kinds=(FAST,), test_workers=2, need=5000.0)[0] == 3, "the cheaper of the two"
    assert taken(*listed, kinds=(FAST,), test_workers=1)[0] == 1
    assert taken(*listed, kinds=(), workers=(worker("w", kind="1x fast"),), test_workers=1)[0] == 1


def test_a_kind_whose_launches_fail_is_worth_less():
    # 2 of 5: (boots + 1) / (boots + failures + 1) = 2 / 5
    flaky = kind("flaky", 400.0, boots=1, failures=3)
    listed = (offer(1, "flaky", 0.4), offer(2, "fast", 0.9))
    assert taken(*listed, kinds=(flaky, FAST), need=5000.0) == [2, 1]
    assert taken(offer(1, "flaky", 0.4), offer(2, "fast", 1.1), kinds=(flaky, FAST), need=5000.0) == [1, 2]


def host(number: int, seconds: float, group=1) -> HostBoot:
    return HostBoot(workergroup_id=group, machine_id=1000 + number, boot_seconds=seconds)


def test_the_dollars_of_the_boot_count_by_what_the_host_needed():
    # Spread over an hour: 0.40 * (1 + 1800 / 3600) = 0.60, 0.50 * (1 + 60 / 3600) = 0.508
    slow, quick = offer(1, "fast", 0.40), offer(2, "fast", 0.50)
    assert taken(slow, quick, kinds=(FAST,), hosts=(host(1, 1800.0), host(2, 60.0))) == [2, 1]
    assert taken(slow, quick, kinds=(FAST,), hosts=(host(1, 1800.0, group=2),)) == [1, 2], (
        "another model's boots"
    )
    assert taken(slow, quick, kinds=(FAST,)) == [1, 2]


def test_a_host_without_boots_counts_as_its_kind():
    # 0.40 * (1 + 600 / 3600) = 0.467; 0.45 * (1 + 60 / 3600) = 0.4575
    near, far = (
        kind("near", 400.0, boots=3, boot_seconds=60.0),
        kind("far", 400.0, boots=3, boot_seconds=600.0),
    )
    listed = (offer(1, "far", 0.40), offer(2, "near", 0.45))
    assert taken(*listed, kinds=(near, far), need=5000.0) == [2, 1]
    assert taken(*listed, kinds=(near, far), hosts=(host(1, 30.0),), need=5000.0) == [1, 2], (
        "this one is quick"
    )


def test_offers_that_are_not_eligible_are_left_out_for_good():
    listed = (offer(1, "fast", 0.4), offer(2, "fast", 0.5), offer(3, "fast", 0.6))
    assert taken(*listed, kinds=(FAST,), eligible=lambda each: each.offer.id != 2) == [1, 3]


def test_a_kind_was_tried_if_the_workergroup_has_or_had_a_worker_of_it():
    records = (kind("measured", 1.0), kind("failed", failures=1), kind("seen"))
    other = KindRecord(workergroup_id=2, kind="1x other", perf=1.0, samples=1)
    learned = MachineStats(kinds=(*records, other))
    workers = (worker("w", kind="1x mine"), worker("v", kind="1x theirs", workergroup_id=2))
    assert kinds_tried(1, learned, workers) == {"1x measured", "1x failed", "1x mine"}


def test_price_performance_is_perf_for_the_money():
    perfs = PerfEstimates.of((), MachineStats())
    rates = [price_performance(worker("w", perf=100.0, price=price), perfs) for price in (0.5, 0.25, 0.0)]
    assert rates[:2] == [pytest.approx(200.0), pytest.approx(400.0)]
    assert all(low < high for low, high in pairwise(rates))
