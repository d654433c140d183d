"""Tests of each row of the parameter table."""

from dataclasses import replace

import pytest

from policy.planning.planner import plan
from policy.state.apply_operation import apply_operation, launched_worker
from policy.state.plan import Destroy, Recruit
from policy.state.worker import Goal, MachineStats
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    after,
    brief,
    committed_dollars_per_hour,
    decide,
    draining,
    endpoint,
    group,
    held_before,
    offer,
    offers,
    plenty,
    see,
    steady,
    worker,
)


def recruits(decided):
    return sum(each.startswith("recruit") for each in brief(decided))


def drains(decided):
    return [each for each in brief(decided) if each.startswith("drain")]


# max_workers


def test_max_workers_caps_all_workers_hot_cold_and_being_created():
    crowd = [worker("hot"), worker("cold", COLD), worker("new", S.PENDING, operation="create")]
    decided = decide(see(*crowd, config=endpoint(max_workers=5, min_workers=9)))
    assert recruits(decided) == 2


def test_at_max_workers_growth_waits_with_a_reason():
    decided = decide(see(worker("hot"), config=endpoint(max_workers=1), load=steady(500)))
    assert recruits(decided) == 0
    assert any("max_workers 1 is reached" in wait.reason for wait in decided.waits)


def test_at_max_workers_no_offers_are_searched_for():
    decided = decide(see(worker("hot"), config=endpoint(max_workers=1), load=steady(500), offers=()))
    assert not [each for each in brief(decided) if each.startswith("search")]
    assert any("max_workers 1 is reached" in wait.reason for wait in decided.waits)


def test_lowering_max_workers_releases_cold_workers_first_and_drains_hot_ones():
    seen = see(
        worker("hot1"), worker("hot2"), worker("cold", COLD), config=endpoint(max_workers=1, min_load=150)
    )
    assert brief(decide(seen)) == ["destroy cold", "drain hot1 to destroy"]


# min_workers


def test_min_workers_recruits_workers_that_load_once():
    assert recruits(decide(see(config=endpoint(min_workers=3)))) == 3


def test_min_workers_counts_hot_cold_and_booting():
    crowd = [worker("hot"), worker("cold", COLD), worker("boots", S.MODEL_LOADING, since=NOW - 20)]
    assert recruits(decide(see(*crowd, config=endpoint(min_workers=4)))) == 1


def test_min_workers_keeps_its_number_cold_after_they_have_loaded():
    idle = held_before(see(worker("w1"), worker("w2"), config=endpoint(min_workers=2)))
    assert drains(decide(idle)) == ["drain w1 to stop", "drain w2 to stop"]
    asleep = held_before(see(worker("w1", COLD), worker("w2", COLD), config=endpoint(min_workers=2)))
    assert brief(decide(asleep)) == []


def test_workers_above_min_workers_are_released_without_demand():
    asleep = held_before(
        see(worker("w1", COLD), worker("w2", COLD, price=0.9), config=endpoint(min_workers=1))
    )
    assert brief(decide(asleep)) == ["destroy w2"]


# min_load


def test_any_min_load_keeps_one_worker_hot():
    idle = held_before(see(worker("w1"), worker("w2"), config=endpoint(min_load=1)))
    assert drains(decide(idle)) == ["drain w1 to stop"]


def test_hot_capacity_is_at_least_min_load():
    # 250 load/s need three workers of 100.
    assert recruits(decide(see(config=endpoint(min_load=250)))) == 3


def test_min_load_is_capacity_and_not_divided_by_target_util():
    assert decide(see(config=endpoint(min_load=250, target_util=0.5))).targets.hot_wanted == 250


# target_util


@pytest.mark.parametrize(
    ("util", "spare_percent"), [(0.9, 11.1), (0.8, 25.0), (0.5, 100.0), (0.4, 150.0), (1.0, 0.0)]
)
def test_target_util_is_spare_capacity(util, spare_percent):
    wanted = decide(see(config=endpoint(target_util=util), load=steady(900))).targets.hot_wanted
    assert wanted == pytest.approx(900 * (1 + spare_percent / 100), rel=1e-3)


def test_900_load_at_target_util_090_asks_for_1000():
    crowd = [worker(f"w{number}") for number in range(10)]
    decided = decide(see(*crowd, config=endpoint(target_util=0.9), load=steady(900)))
    assert decided.targets.hot_wanted == pytest.approx(1000)
    assert brief(decided) == []


# cold_mult


def test_cold_mult_multiplies_hot_capacity_into_total_capacity():
    # 100 hot x 2 = 200 total: one hot worker exists, one cold worker is recruited.
    decided = decide(see(worker("hot"), config=endpoint(cold_mult=2), load=steady(100)))
    assert decided.targets.total_wanted == pytest.approx(200)
    assert recruits(decided) == 1


def test_cold_mult_follows_hot_capacity_up():
    decided = decide(see(worker("hot"), config=endpoint(cold_mult=2), load=steady(150)))
    assert decided.targets.total_wanted == pytest.approx(300)


def test_a_burst_of_seconds_does_not_multiply_the_cold_pool():
    calm = steady(100)
    burst = replace(calm, seconds=(*calm.seconds[:-2], *((at, 5000.0) for at, _ in calm.seconds[-2:])))
    decided = decide(see(*(worker(f"w{n}") for n in range(9)), config=endpoint(cold_mult=3), load=burst))
    assert decided.targets.hot_wanted > 200
    assert decided.targets.total_wanted < 3 * decided.targets.hot_wanted


# min_cold_load


def test_min_cold_load_sets_total_capacity_directly():
    # 100 hot, 300 total: two cold workers.
    decided = decide(see(worker("hot"), config=endpoint(min_cold_load=300), load=steady(100)))
    assert decided.targets.total_wanted == 300
    assert recruits(decided) == 2


def test_the_largest_of_the_cold_floors_wins():
    config = endpoint(min_cold_load=200, min_workers=5, cold_mult=3)
    decided = decide(see(worker("hot"), config=config, load=steady(100)))
    assert decided.targets.total_wanted == pytest.approx(300)
    assert recruits(decided) == 4


def test_max_workers_caps_the_cold_floors():
    assert recruits(decide(see(config=endpoint(min_workers=9, min_cold_load=5000, max_workers=4)))) == 4


# inactivity_timeout; the endpoint has been idle for 100 s in all of these


def idle_since(seconds, **config):
    config = {"min_workers": 1} | config
    return held_before(
        see(worker("w1"), worker("w2"), config=endpoint(**config), load=steady(0, last=NOW - seconds))
    )


@pytest.mark.parametrize("timeout", [None, 0])
def test_without_an_inactivity_timeout_scaling_to_zero_is_allowed(timeout):
    assert len(drains(decide(idle_since(1, inactivity_timeout=timeout)))) == 2


def test_a_negative_inactivity_timeout_never_scales_to_zero():
    assert len(drains(decide(idle_since(1e6, inactivity_timeout=-1)))) == 1


@pytest.mark.parametrize(("idle", "drained"), [(99, 1), (100, 2), (101, 2)])
def test_a_positive_inactivity_timeout_keeps_one_worker_hot_for_that_long(idle, drained):
    assert len(drains(decide(idle_since(idle, inactivity_timeout=100)))) == drained


def test_min_load_keeps_a_hot_worker_past_the_inactivity_timeout():
    assert len(drains(decide(idle_since(1000, inactivity_timeout=100, min_load=1)))) == 1


def test_min_workers_are_kept_cold_past_the_inactivity_timeout():
    seen = held_before(
        see(
            worker("w1", COLD),
            worker("w2", COLD),
            config=endpoint(min_workers=1, inactivity_timeout=100),
            load=steady(0, last=NOW - 1000),
        )
    )
    assert len(brief(decide(seen))) == 1


def test_with_both_floors_at_zero_an_idle_endpoint_keeps_no_workers_at_all():
    seen = held_before(
        see(
            worker("w1", COLD),
            worker("w2", COLD),
            config=endpoint(inactivity_timeout=100),
            load=steady(0, last=NOW - 1000),
        )
    )
    assert brief(decide(seen)) == ["destroy w1", "destroy w2"]


# target_queue_time


def test_a_queue_over_its_target_adds_capacity_until_it_clears_within_it():
    # 100 load/s arrive at one worker of 100 and 3000 are queued: 30 s to clear, target 10 s, so 100 + 3000 / 10.
    seen = see(worker("w1"), load=steady(100, waiting=3000, requests=30))
    decided = decide(seen)
    assert decided.targets.queue_seconds == pytest.approx(30)
    assert decided.targets.hot_wanted == pytest.approx(400)
    assert recruits(decided) == 3


def test_a_queue_within_its_target_adds_nothing():
    assert recruits(decide(see(worker("w1"), load=steady(90, waiting=900, requests=9)))) == 0


def test_load_held_by_workers_counts_towards_the_queue_time():
    # Of 30 requests of 100 load, one runs and 29 wait.
    busy = worker("w1", load=3000.0, in_flight=30)
    assert decide(see(busy, load=steady(100))).targets.hot_wanted == pytest.approx(390)


def test_cost_equal_to_perf_does_not_hide_the_queue():
    # A request takes one worker-second and 1.5 arrive per second, so the utilisation of one worker is 100 %.
    seen = see(worker("w1", load=100.0, in_flight=1), load=steady(100, waiting=2000, requests=20))
    assert recruits(decide(seen)) >= 1


def test_a_queue_without_any_worker_recruits_one_at_once():
    decided = decide(see(load=steady(0, waiting=100, requests=1)))
    assert recruits(decided) == 1


def test_one_huge_request_does_not_rent_fifty_machines():
    # 100,000 load in one request, which runs on one worker.
    assert recruits(decide(see(load=steady(0, waiting=100_000, requests=1)))) == 1


def test_the_backlog_boost_is_bounded_by_a_multiple_of_the_demand():
    seen = see(worker("w1"), load=steady(100, waiting=20_000, requests=200))
    assert decide(seen).targets.hot_wanted == pytest.approx(400)


def test_a_large_queue_exceeds_the_boost_limit_while_it_keeps_workers_busy():
    boots = 120.0
    seen = see(worker("w1"), load=steady(100, waiting=10 * 100 * boots, requests=600))
    assert decide(seen).targets.hot_wanted == pytest.approx(100 + 10 * 100)


# endpoint_state


def test_a_suspended_endpoint_is_not_scaled():
    crowd = [worker("w1"), worker("boots", S.MODEL_LOADING, since=NOW - 20), worker("cold", COLD)]
    for load in (steady(0), steady(5000, waiting=9000, requests=90)):
        seen = held_before(see(*crowd, config=endpoint(endpoint_state="suspended", min_workers=9), load=load))
        assert brief(decide(seen)) == []


def test_suspending_cancels_drains_that_only_save_money():
    seen = see(draining("w1", seen=None), config=endpoint(endpoint_state="suspended"))
    assert brief(decide(seen)) == ["cancel_drain w1"]


def test_a_stopped_endpoint_drains_hot_workers_and_stops_booting_ones():
    crowd = [worker("w1"), worker("boots", S.MODEL_LOADING, since=NOW - 20), worker("cold", COLD)]
    seen = see(*crowd, config=endpoint(endpoint_state="stopped"), load=steady(500))
    decided = decide(seen)
    assert brief(decided) == ["drain w1 to stop", "stop boots"]
    assert decided.waits[0].code == "stopped"


def test_deletion_drains_hot_workers_and_destroys_the_rest():
    crowd = [worker("w1"), worker("boots", S.MODEL_LOADING, since=NOW - 20), worker("cold", COLD)]
    assert brief(decide(see(*crowd, deleting=True))) == [
        "drain w1 to destroy",
        "destroy boots",
        "destroy cold",
    ]


# dollars_per_hour_max


def test_the_budget_bounds_recruiting():
    decided = decide(see(config=endpoint(dollars_per_hour_max=1.0, min_workers=9)))
    assert recruits(decided) == 3
    assert any(wait.code == "budget" for wait in decided.waits)


def test_an_offer_over_the_budget_is_passed_over_for_a_cheaper_one():
    listed = offers(offer(1, gpu="H100", price=2.0), offer(2, gpu="RTX 3060", price=0.2))
    seen = see(config=endpoint(dollars_per_hour_max=1.0, min_load=50), offers=(listed,))
    assert brief(decide(seen)) == ["recruit 1x RTX 3060 2"]


def test_a_cold_worker_is_not_started_over_the_budget():
    seen = see(
        worker("hot"),
        worker("cold", COLD),
        config=endpoint(dollars_per_hour_max=0.5),
        load=steady(200),
        offers=(),
    )
    assert not any(each.startswith("activate") for each in brief(decide(seen)))


def test_lowering_the_budget_drains_the_worst_until_it_is_kept():
    crowd = [worker("good", price=0.3), worker("dear", price=0.9), worker("fair", price=0.4)]
    seen = see(*crowd, config=endpoint(dollars_per_hour_max=0.8), load=steady(300))
    decided = decide(seen)
    assert "drain dear to stop" in brief(decided)
    assert committed_dollars_per_hour([crowd[0], crowd[2]]) <= 0.8


@pytest.mark.parametrize("price", [0.3, 0.31])
def test_a_lowered_budget_blocks_no_hosts(price):
    """A machine often costs slightly more than its offer because of its disk. That must not block its host."""
    crowd = [ordered_at(0.3, f"w{number}", price=price, machine_id=1 + number) for number in range(7)]
    seen = see(*crowd, config=endpoint(dollars_per_hour_max=0.7, min_workers=7))
    decided = decide(seen)
    assert [each.split()[0] for each in brief(decided)] == ["stop"] * 5
    assert decided.failed_hosts == ()
    # All five are stopped and the budget is raised again: no pause, and their hosts may be rented.
    stopped = tuple(
        each.replace(state=S.DESTROYING if each.state is S.STOPPING else each.state, operation="")
        for each in after(seen, decided).workers
    )
    found = (offers(offer(1, machine_id=3), at=NOW + 5),)
    raised = replace(after(seen, decided), workers=stopped, now=NOW + 6, offers=found, listed_at=NOW + 5)
    raised = replace(raised, config=endpoint(dollars_per_hour_max=9.0, min_workers=7))
    assert "recruit 1x RTX 4090 1" in brief(plan(raised))


def test_a_host_dearer_than_its_offer_is_blocked_for_an_hour_without_a_failure():
    """Rented again at once, it would exceed the budget again."""
    decided = decide(
        see(ordered_at(0.3, "w1", price=0.5, machine_id=9), config=endpoint(dollars_per_hour_max=0.4))
    )
    assert brief(decided)[0] == "stop w1"
    (avoided,) = decided.failed_hosts
    assert (avoided.machine_id, avoided.until, avoided.failed_at) == (9, NOW + 3600, 0.0)
    assert avoided.reason == "it costs $0.50/h, offered for $0.30/h; over budget"


def test_the_offered_price_is_recorded_with_the_worker():
    recruit = Recruit(launch_id="w1", workergroup_id=1, offer=offer(1, price=0.3), reason="asked")
    assert launched_worker(recruit, NOW).offered_dollars_per_hour == 0.3


def ordered_at(offered, name, **given):
    """A booting worker, rented from an offer at this price."""
    more = {"since": NOW - 20, "offered_dollars_per_hour": offered} | given
    return worker(name, S.MODEL_LOADING, **more)


def test_a_released_worker_counts_in_the_budget_until_it_is_gone():
    released = apply_operation(worker("w", price=0.4), Destroy(launch_id="w", reason="asked"), NOW)
    assert committed_dollars_per_hour([released]) == 0.4
    from_cold = apply_operation(worker("c", COLD, price=0.4), Destroy(launch_id="c", reason="asked"), NOW)
    assert committed_dollars_per_hour([from_cold]) == 0.0


# workergroup parameters


def test_a_workergroups_max_workers_bounds_it_alone():
    two = (group(1, max_workers=1), group(2))
    found = (plenty(), offers(*(offer(100 + n, price=0.5) for n in range(9)), group=2))
    decided = decide(see(config=endpoint(min_workers=4), workergroups=two, offers=found))
    mine = [each.workergroup_id for each in decided.operations if each.op == "recruit"]
    assert mine == [1, 2, 2, 2]


def test_a_workergroups_cold_workers_are_kept_in_it():
    two = (group(1), group(2, cold_workers=2))
    found = (plenty(), offers(*(offer(100 + n, price=0.5) for n in range(9)), group=2))
    decided = decide(see(config=endpoint(), workergroups=two, offers=found))
    assert [each.workergroup_id for each in decided.operations] == [2, 2]


def test_a_workergroups_min_load_keeps_it_hot():
    seen = held_before(see(worker("w1"), worker("w2"), workergroups=(group(min_load=50),)))
    assert drains(decide(seen)) == ["drain w1 to stop"]


def test_a_workergroups_target_util_and_cold_mult_override_the_endpoints():
    groups = (group(target_util=0.5, cold_mult=2),)
    wanted = decide(see(workergroups=groups, load=steady(100))).targets
    assert wanted.hot_wanted == pytest.approx(200)
    assert wanted.total_wanted == pytest.approx(400)


def test_test_workers_is_the_number_of_kinds_to_try():
    listed = offers(*(offer(n, gpu=f"GPU {n % 5}", price=0.3 + 0.01 * (n % 5)) for n in range(1, 30)))
    seen = see(
        config=endpoint(min_workers=6),
        workergroups=(group(test_workers=3),),
        offers=(listed,),
        learned=MachineStats(),
    )
    kinds = [each.offer.kind for each in decide(seen).operations]
    assert len(set(kinds[:3])) == 3
    assert len(set(kinds)) == 3


def test_trying_kinds_recruits_no_extra_workers():
    seen = see(worker("w1"), workergroups=(group(test_workers=3),), load=steady(50))
    assert brief(decide(seen)) == []


def test_workers_of_a_removed_workergroup_are_drained_and_destroyed():
    crowd = [worker("w1", workergroup_id=7), worker("cold", COLD, workergroup_id=7)]
    assert brief(decide(see(*crowd))) == ["drain w1 to destroy", "destroy cold"]


def test_drain_seconds_max_bounds_a_drain():
    held = held_before(see(worker("w1"), config=endpoint(drain_seconds_max=30)))
    (operation,) = decide(held).operations
    assert operation.drain.deadline == NOW + 30
    assert operation.drain.goal is Goal.STOP
