from dataclasses import replace

import pytest

from policy.load.history import LoadHistory
from policy.state.observation import Memory
from policy.state.plan import Activate
from policy.state.worker import Goal, KindRecord, MachineStats
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    brief,
    decide,
    draining,
    endpoint,
    group,
    held_before,
    knows,
    offer,
    offers,
    plenty,
    see,
    steady,
    worker,
)


def test_cold_workers_are_started_before_offers_are_rented():
    decided = decide(see(worker("hot"), worker("cold", COLD), load=steady(300)))
    assert brief(decided) == ["activate cold", "recruit 1x RTX 4090 1"]


def test_a_drain_is_cancelled_before_a_cold_worker_is_started():
    decided = decide(see(draining("leaving"), worker("cold", COLD), load=steady(90)))
    assert brief(decided)[0] in ("cancel_drain leaving", "stop leaving")
    decided = decide(see(draining("leaving", seen=None), worker("cold", COLD), load=steady(90)))
    assert brief(decided) == ["cancel_drain leaving"]


def test_the_reason_of_an_activation_has_cause_and_numbers():
    seen = see(
        worker("hot", perf=380),
        worker("4f1c22", COLD, perf=210, price=0.31, since=NOW - 720),
        load=steady(420),
    )
    (operation,) = decide(seen).operations
    assert isinstance(operation, Activate)
    assert operation.reason == (
        "predicted 420 load/s, 380 of 420 load/s hot; 1x RTX 4090 ($0.31/h) adds 210 load/s"
    )
    assert operation.step == "add_hot_capacity"
    assert operation.numbers == {
        "perf": 210,
        "dollars_per_hour": 0.31,
        "predicted_load": 420,
        "hot_wanted": 420,
        "hot": 380,
        "cold_seconds": 720,
    }


def test_a_worker_without_load_is_drained_for_its_inactivity_timeout():
    seen = see(worker("hot"), config=endpoint(inactivity_timeout=30), load=steady(0, last=NOW - 30))
    (operation,) = decide(held_before(seen)).operations
    assert operation.reason == "idle for 30 s (inactivity_timeout); scaling to zero"
    assert operation.numbers["idle_seconds"] == 30


def test_the_best_price_performance_is_started_first():
    fleet = [
        worker("dear", COLD, price=0.9),
        worker("cheap", COLD, price=0.2),
        worker("fair", COLD, price=0.4),
    ]
    decided = decide(see(*fleet, load=steady(200)))
    assert brief(decided) == ["activate cheap", "activate fair"]


def test_the_worst_price_performance_is_drained_first():
    fleet = [worker("dear", price=0.9), worker("cheap", price=0.2), worker("fair", price=0.4)]
    seen = held_before(see(*fleet, load=steady(100), config=endpoint(min_load=150)))
    assert brief(decide(seen)) == ["drain dear to stop"]


def test_booting_capacity_counts():
    fleet = [worker("hot"), worker("boots", S.MODEL_LOADING, since=NOW - 20)]
    assert brief(decide(see(*fleet, load=steady(200)))) == []


def test_a_booting_worker_with_unknown_perf_counts_as_enough():
    first = see(config=endpoint(min_load=5000), learned=MachineStats())
    assert len(decide(first).operations) == 1
    boots = worker("boots", S.MODEL_LOADING, since=NOW - 20)
    assert brief(decide(replace(first, workers=(boots,)))) == []


def test_missing_capacity_is_rented_as_soon_as_the_perf_is_known():
    ready = worker("w1", perf=100)
    seen = see(ready, config=endpoint(min_load=500), learned=MachineStats())
    assert sum(each.startswith("recruit") for each in brief(decide(seen))) == 4


def test_a_stopping_worker_is_started_again_instead_of_replaced():
    decided = decide(see(worker("w1", S.STOPPING, since=NOW - 2, operation="stop"), load=steady(50)))
    assert brief(decided) == []
    assert decided.waits[0].reason.endswith("can start once it has stopped")


def test_a_worker_whose_stop_takes_too_long_is_replaced():
    stuck = worker("w1", S.STOPPING, since=NOW - 1800, stop_accepted_at=NOW - 20, market_status="offline")
    decided = decide(see(stuck, load=steady(50), listed_at=NOW - 1))
    assert brief(decided) == ["recruit 1x RTX 4090 1"]
    assert not any("once it has stopped" in wait.reason for wait in decided.waits)


def test_no_offer_is_rented_for_a_queue_that_clears_before_a_boot_ends():
    fleet = [*(worker(name) for name in ("a", "b")), *(worker(name, COLD) for name in ("c", "d", "e"))]

    def rented(load):
        decided = decide(see(*fleet, load=load))
        assert sum(each.startswith("activate") for each in brief(decided)) == 3
        return sum(each.startswith("recruit") for each in brief(decided))

    # 20 s of waiting; a boot takes 120 s, in which five workers do 24,000 load more than arrives
    assert rented(steady(300, waiting=4000, requests=40)) == 0
    # nothing is left of five workers, or less than waits
    assert rented(steady(500, waiting=4000, requests=40)) > 0
    assert rented(steady(300, waiting=40_000, requests=400)) > 0


def test_a_small_gap_waits_for_ten_seconds():
    seen = see(worker("w1"), load=steady(104))
    first = decide(seen)
    assert brief(first) == []
    assert first.replan_at == NOW + 10
    again = replace(seen, now=NOW + 10, memory=first.memory, offers=(plenty(),), listed_at=NOW + 9)
    assert brief(decide(again)) == ["recruit 1x RTX 4090 1"]


def test_a_lull_does_not_stop_a_worker_before_the_hold_is_over():
    busy = see(worker("w1"), worker("w2"), load=steady(190))
    memory = decide(busy).memory
    calm = replace(busy, now=NOW + 20, load=steady(50, until=NOW + 20), memory=memory, listed_at=NOW + 19)
    first = decide(calm)
    assert brief(first) == []
    # nothing was learned yet: the hold is three minutes, and the 190 were last wanted at NOW + 20

    def at(seconds):
        then = NOW + seconds
        load = steady(50, until=then)
        return replace(calm, now=then, load=load, memory=first.memory, listed_at=then - 1)

    assert brief(decide(at(199))) == []
    assert brief(decide(at(200))) == ["drain w1 to stop"]


def test_a_cold_worker_is_kept_until_its_disk_has_cost_a_boot():
    config = endpoint(cold_mult=2)
    memory = Memory(hot_peaks=((NOW, 100.0),), total_peaks=((NOW - 8999, 400.0), (NOW, 200.0)))
    fleet = [worker("w1"), *(worker(f"cold{n}", COLD) for n in range(3))]
    seen = see(*fleet, config=config, load=steady(90), memory=memory)
    assert brief(decide(seen)) == []
    late = replace(seen, memory=replace(memory, total_peaks=((NOW - 9001, 400.0), (NOW, 200.0))))
    assert brief(decide(late)) == ["destroy cold0"]


def test_no_capacity_is_removed_before_a_minute_of_load_is_known():
    seen = held_before(see(worker("w1"), load=steady(0, seconds=59.0)))
    assert brief(decide(seen)) == []
    assert brief(decide(replace(seen, load=steady(0, seconds=60.0)))) == ["drain w1 to stop"]


def test_missing_data_is_not_zero_load():
    seen = held_before(see(worker("w1"), worker("cold", COLD), load=LoadHistory()))
    assert brief(decide(seen)) == []
    outage = held_before(see(worker("w1", reported_at=NOW - 999), load=steady(0, until=NOW - 181)))
    assert brief(decide(outage)) == []
    # one second less, and it is news
    known = replace(outage, workers=(worker("w1", reported_at=NOW - 181),), load=steady(0, until=NOW - 180))
    assert brief(decide(known)) == ["drain w1 to stop"]


def test_the_last_known_level_holds_through_an_outage_of_the_engines():
    outage = see(worker("w1"), load=steady(300, until=NOW - 1000))
    decided = decide(outage)
    assert decided.targets.predicted_load == 300
    assert "last engine report 1000 s ago" in decided.targets.reason
    assert len(brief(decided)) == 2


def test_scaling_up_without_offers_searches_and_waits():
    decided = decide(see(load=steady(100), offers=()))
    assert brief(decided) == ["search 1"]
    assert decided.waits[0].code == "recruiting"


def test_offers_older_than_a_minute_are_searched_again():
    assert brief(decide(see(load=steady(100), offers=(offers(offer(1), at=NOW - 60),)))) == [
        "recruit 1x RTX 4090 1"
    ]
    assert brief(decide(see(load=steady(100), offers=(offers(offer(1), at=NOW - 61),)))) == ["search 1"]


def test_offers_for_an_older_revision_are_searched_again():
    seen = see(load=steady(100), workergroups=(group(revision=2),))
    assert brief(decide(seen)) == ["search 1"]


def test_a_search_that_found_nothing_is_a_wait_and_not_an_error():
    decided = decide(see(load=steady(100), offers=(offers(at=NOW - 5),)))
    assert brief(decided) == []
    assert decided.waits[0].code == "no_capacity"
    assert decided.waits[0].until == NOW + 55.5


def test_a_failed_search_is_a_wait_with_its_error():
    decided = decide(see(load=steady(100), offers=(offers(error="429 from the market"),)))
    assert "429 from the market" in decided.waits[0].reason


def test_a_booting_worker_is_announced_with_the_time_its_kind_takes():
    seen = see(worker("boots", S.MODEL_LOADING, since=NOW - 20), load=steady(50), learned=knows(boot=120))
    wait = decide(seen).waits[0]
    assert (wait.code, wait.until) == ("booting", NOW + 100)
    assert wait.reason.endswith("MODEL_LOADING, expected in 100 s") or "expected in" in wait.reason


def test_recruits_without_a_launch_id_wait_for_the_next_plan():
    decided = decide(see(config=endpoint(min_workers=5), launch_ids=("a" * 12,)))
    assert len(brief(decided)) == 1
    assert decided.replan_at == NOW + 1


def test_an_offer_is_not_rented_twice():
    two = offers(offer(1), offer(2))
    decided = decide(see(worker("w1", offer_id=1), offers=(two,), config=endpoint(min_workers=3)))
    assert brief(decided) == ["recruit 1x RTX 4090 2"]


def test_a_machine_with_eight_gpus_is_not_rented_for_little_load():
    small = KindRecord(workergroup_id=1, kind="1x RTX 4090", perf=100.0, samples=1)
    large = KindRecord(workergroup_id=1, kind="1x H100", perf=4000.0, samples=1)
    listed = offers(offer(1, gpu="H100", price=2.0), offer(2, gpu="RTX 4090", price=0.3))
    seen = see(offers=(listed,), learned=MachineStats(kinds=(small, large)), config=endpoint(min_load=50))
    assert brief(decide(seen)) == ["recruit 1x RTX 4090 2"]
    assert brief(decide(replace(seen, config=endpoint(min_load=3000)))) == ["recruit 1x H100 1"]


def test_the_perf_of_a_new_kind_is_estimated_from_dlperf():
    # 100 load/s at dlperf 20: 5 per unit, so dlperf 60 is worth 300
    listed = offers(
        offer(1, gpu="RTX 4090", price=0.3, dlperf=20.0), offer(2, gpu="RTX 5090", price=0.5, dlperf=60.0)
    )
    decided = decide(see(offers=(listed,), config=endpoint(min_load=300)))
    (operation,) = decided.operations
    assert (operation.offer.id, operation.perf_estimate) == (2, 300.0)


def test_a_kind_that_often_fails_is_worth_less():
    good = KindRecord(workergroup_id=1, kind="1x A", perf=100.0, boots=3, samples=3)
    flaky = KindRecord(workergroup_id=1, kind="1x B", perf=100.0, boots=0, failures=3, samples=1)
    listed = offers(offer(1, gpu="B", price=0.2), offer(2, gpu="A", price=0.3))
    seen = see(offers=(listed,), learned=MachineStats(kinds=(good, flaky)), config=endpoint(min_load=50))
    assert brief(decide(seen)) == ["recruit 1x A 2"]


# drains


def test_a_drained_worker_is_stopped():
    assert brief(decide(see(draining("w1")))) == ["stop w1"]


def test_a_drain_waits_for_requests_tickets_and_sessions():
    for held in ({"in_flight": 1}, {"tickets_open": 1}, {"load": 5.0}):
        assert brief(decide(see(draining("w1", **held)))) == []


def test_a_drain_waits_until_every_engine_has_seen_it():
    assert brief(decide(see(draining("w1", seen=None)))) == []


def test_a_drain_waits_for_a_report_younger_than_itself():
    assert brief(decide(see(draining("w1", reported_at=NOW - 30)))) == []
    assert brief(decide(see(draining("w1", reported_at=NOW - 29)))) == ["stop w1"]


def test_a_drain_past_its_deadline_stops_the_worker_with_a_reason():
    late = draining("w1", in_flight=2, deadline=NOW, began=NOW - 600)
    (operation,) = decide(see(late)).operations
    assert operation.op == "stop"
    assert "drain deadline of 600 s passed with 2 in flight" in operation.reason
    assert brief(decide(see(late.replace(drain=replace(late.drain, deadline=NOW + 1))))) == []


def test_a_drain_to_destroy_ends_in_a_release():
    assert brief(decide(see(draining("w1", Goal.DESTROY)))) == ["destroy w1"]


def test_an_idle_endpoint_releases_cold_workers_although_reports_are_rare():
    asleep = held_before(see(worker("w1", COLD), load=steady(0, until=NOW - 900)))
    assert brief(decide(asleep)) == ["destroy w1"]
    assert brief(decide(replace(asleep, load=steady(0, until=NOW - 901)))) == []
    awake = replace(asleep, workers=(*asleep.workers, worker("w2", reported_at=NOW - 900)))
    assert brief(decide(awake)) == []


@pytest.mark.parametrize(("min_load", "named"), [(126, True), (125, False), (120, False)])
def test_a_floor_is_part_of_the_reason_if_the_load_needs_less(min_load, named):
    # 100 load/s at target_util 0.8 need 125 load/s
    seen = see(worker("w"), load=steady(100), config=endpoint(min_load=min_load, target_util=0.8))
    assert (f"; floor {min_load} load/s" in decide(seen).targets.reason) is named


def test_drains_cancelled_for_waiting_requests_do_not_begin_again_at_once():
    leaving = [draining(f"w{number}", seen=None, perf=50) for number in range(4)]
    seen = held_before(see(*leaving, load=steady(8, waiting=400, requests=4)))
    decided = decide(seen)
    assert [each.split()[0] for each in brief(decided)] == ["cancel_drain", "cancel_drain"]
    first = decide(replace(seen, workers=(worker("w0", perf=50), worker("w1", perf=50)), load=steady(8)))
    assert brief(first) == ["drain w0 to stop"]


def test_a_surplus_worker_of_an_endpoint_over_budget_gets_a_drain_deadline():
    config = endpoint(dollars_per_hour_max=0.5)
    stopping = worker("w0", S.STOPPING, price=0.3)
    decided = decide(
        held_before(see(stopping, worker("w1"), worker("w2", price=0.1), config=config, load=steady(50)))
    )
    (drain,) = (each for each in decided.operations if each.op == "drain")
    assert not drain.drain.until_idle


def test_a_substitute_is_sought_in_the_plan_that_cancels_the_drain_of_an_outdated_worker():
    leaving = draining("w1", seen=None, perf=400)
    config = endpoint(max_workers=2, min_load=300)
    decided = decide(see(leaving, workergroups=(group(revision=2),), config=config))
    assert brief(decided) == ["cancel_drain w1", "search 1"]


def test_demand_counts_the_workers_that_the_budget_leaves():
    dear, cheap = worker("w0", price=2.0), draining("w1", seen=None, perf=50, price=0.1)
    config = endpoint(dollars_per_hour_max=0.5, target_queue_time=1)
    decided = decide(see(dear, cheap, config=config, load=steady(0, waiting=100, requests=1)))
    assert brief(decided) == ["drain w0 to stop", "cancel_drain w1"]
