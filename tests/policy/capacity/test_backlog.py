"""Queued work, and the capacity that clears it."""

import math
from dataclasses import replace

import pytest

from policy.capacity.backlog import Backlog, clears_before_boot, surge_capacity
from policy.capacity.performance import PerfEstimates
from policy.capacity.supply import measure_supply
from policy.load.forecast import Forecast
from policy.state.worker import Goal, MachineStats
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, draining, endpoint, knows, see, steady, worker

PERFS = PerfEstimates.of((), knows())


def test_requests_behind_a_running_one_and_in_the_engines_queues_are_the_backlog():
    seen = see(
        worker("two", load=60.0, in_flight=2),
        worker("one", load=60.0, in_flight=1),
        worker("eight at once", load=60.0, in_flight=6, waiting=0),
        worker("four at once", load=60.0, in_flight=6, waiting=2),
        worker("routed", load=60.0),
        draining("draining", load=60.0, in_flight=2),
        worker("suspect", load=60.0, in_flight=2, suspect_since=NOW - 5),
        load=steady(0, waiting=40.0, requests=3),
    )
    backlog = Backlog.of(seen, PERFS)
    assert backlog.load == 40.0 + 30.0 + 0.0 + 0.0 + 20.0 + 60.0
    assert (backlog.queued_requests, backlog.requests, backlog.ready) == (3, 3 + 2 + 1 + 6 + 6 + 2, 500.0)
    assert backlog.seconds == pytest.approx(150.0 / 500.0)


@pytest.mark.parametrize(
    ("load", "queued", "ready", "seconds"),
    [
        (0.0, 0, 0.0, 0.0),
        (0.0, 1, 0.0, math.inf),  # a request of cost 0 needs a worker, too
        (0.0, 1, 100.0, 0.0),
        (50.0, 1, 0.0, math.inf),
        (50.0, 0, 100.0, 0.5),
    ],
)
def test_a_backlog_takes_as_long_as_the_ready_workers_need(load, queued, ready, seconds):
    assert Backlog(load=load, queued_requests=queued, requests=queued, ready=ready).seconds == seconds


def surge(*workers, backlog, rising=0.0, calm=0.0, rent=False, cost=0.0, target=10.0):
    seen = see(*workers, config=endpoint(target_queue_time=target), load=replace(steady(0), mean_cost=cost))
    expected = replace(CALM, rising=rising, load=rising)
    return surge_capacity(seen, backlog, expected, calm, PERFS, DEFAULT_TUNING, rent=rent)


CALM = Forecast(load=0.0, rising=0.0, sustained=0.0, burst=False, known=True, settled=True, reason="")


def waiting(load: float, requests: int = 1000, ready: float = 0.0) -> Backlog:
    return Backlog(load=load, queued_requests=requests, requests=requests, ready=ready)


def test_the_example_of_the_description():
    # arrivals worth 9 workers, 1 is ready, a start takes 20 s, target 10 s: 8 x 20 / 10 + 9
    cold = worker("c", S.INACTIVE)
    wanted = surge(cold, backlog=waiting(0.0, ready=100.0), rising=900.0, calm=900.0, target=10.0)
    assert wanted == min(900.0 + 800.0 * 20.0 / 10.0, 900.0 * DEFAULT_TUNING.backlog_boost_max)


def test_a_queue_that_grows_during_a_slow_start_is_cleared_within_as_long():
    # 100 load/s more arrive for 20 s; a target of 1 s would ask for 20 times that for a moment
    cold = worker("c", S.INACTIVE)
    assert surge(cold, backlog=waiting(0.0), rising=100.0, target=1.0) == 100.0 + 100.0


def test_a_queue_that_shrinks_does_not_reduce_the_capacity():
    # 500 load/s are ready for arrivals of 100: the queue of 1,000 needs 100 more, and nothing is subtracted
    cold = worker("c", S.INACTIVE)
    assert surge(cold, backlog=waiting(1000.0, ready=500.0), rising=100.0, target=10.0) == 200.0


def test_rented_machines_are_for_the_present_backlog_only():
    assert surge(backlog=waiting(50.0), rent=True, target=1.0) == 50.0
    boost = DEFAULT_TUNING.backlog_boost_max
    # 1000 over 120 s of boot is little: the boost of one worker bounds it
    assert surge(backlog=waiting(1000.0), rent=True, target=1.0) == 100.0 * boost
    # 60,000 keep 500 load/s busy for as long as the boot of 120 s
    assert surge(backlog=waiting(60_000.0), rent=True, target=1.0) == max(500.0, 100.0 * boost)


def test_more_workers_than_requests_do_not_help():
    assert surge(backlog=waiting(1000.0, requests=2), rent=True, target=1.0) == 200.0
    assert surge(backlog=waiting(0.0, requests=0), cost=50.0, target=1.0) == 0.0
    # 10 load/s for 20 s are 4 requests of cost 50
    cold = worker("c", S.INACTIVE)
    wanted = surge(cold, backlog=waiting(1000.0, requests=0), rising=10.0, cost=50.0, target=1.0)
    # … and of cost 80 they are two and a half on average
    assert surge(cold, backlog=waiting(1000.0, requests=0), rising=10.0, cost=80.0, target=1.0) == 250.0
    assert wanted == min(400.0, max(100.0 * DEFAULT_TUNING.backlog_boost_max, 10.0 + 1000.0 / 20.0))


@pytest.mark.parametrize(("load", "clears"), [(100.0 * 120.0, True), (100.0 * 120.0 + 1, False)])
def test_a_queue_that_clears_within_a_boot_needs_no_new_machine(load, clears):
    seen = see(worker("a"), worker("c", S.INACTIVE))
    expected = replace(CALM, load=100.0)
    assert clears_before_boot(seen, waiting(load), expected, PERFS, DEFAULT_TUNING) is clears


def test_supply_is_split_by_what_a_worker_can_do_now():
    perfs = PerfEstimates.of((), MachineStats())
    workers = (
        worker("ready", perf=1.0),
        worker("suspect", perf=2.0, suspect_since=NOW),
        draining("stops", perf=4.0),
        draining("updates", perf=8.0, goal=Goal.UPDATE),
        draining("leaves", perf=16.0, goal=Goal.DESTROY),
        worker("starts", S.STARTING, perf=32.0),
        worker("boots", S.LOADING),
        worker("late", S.STARTING, perf=64.0),
        worker("slow", S.STARTING, perf=128.0),
        worker("cold", S.INACTIVE, perf=256.0),
        worker("gone", S.DESTROYING, perf=512.0),
    )
    supply = measure_supply(
        workers,
        perfs,
        is_overtaken=lambda each: each.launch_id == "slow",
        is_overdue=lambda each: each.launch_id == "late",
    )
    assert (supply.ready, supply.cold, supply.overtaken) == (1.0, 256.0, 128.0)
    assert supply.booting == 8.0 + 32.0 + 128.0
    assert supply.draining_hot == 2.0 + 4.0
    assert (supply.unknown_booting, supply.keepable) == (1, 9)
    assert (supply.hot, supply.total) == (169.0, 169.0 + 256.0 + 6.0)
