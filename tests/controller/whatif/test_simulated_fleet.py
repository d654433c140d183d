"""The arithmetic of a simulated fleet: time, load, cost, and what its controller sees."""

from dataclasses import asdict, replace

import pytest

from controller.whatif.fleet import (
    WhatIfFleet,
    WhatIfTotals,
    simulated_worker,
    whatif_fleet,
)
from controller.whatif.market import assumed_offers
from controller.whatif.replay import advance_fleet
from policy.load.erlang import expected_wait
from policy.load.history import LoadHistory, fold
from policy.planning.planner import plan
from policy.state.observation import Observation
from policy.state.worker import Goal
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    BOOTING,
    COLD,
    NOW,
    draining,
    endpoint,
    group,
    held_before,
    knows,
    offer,
    offers,
    see,
    steady,
    worker,
)


@pytest.fixture
def planned(monkeypatch) -> list[Observation]:
    """What the simulated controller saw at each plan."""
    seen: list[Observation] = []
    monkeypatch.setattr(
        "controller.controller.plan", lambda given, tuning: seen.append(given) or plan(given, tuning)
    )
    return seen


def later(seen: Observation, seconds: float, rate: float) -> Observation:
    """The live endpoint after more of this load."""
    at = seen.now + seconds
    return replace(seen, now=at, load=steady(rate, until=at, seconds=300.0 + seconds))


def advanced(seen: Observation, seconds: float, *, rate: float, **fleet: object) -> WhatIfFleet:
    """The fleet that begins as the live one, so many seconds later."""
    live = later(seen, seconds + 15.0, rate)
    begun = replace(whatif_fleet(seen), **fleet)
    return advance_fleet(begun, live, seen.config, DEFAULT_TUNING, NOW + seconds)


def test_totals_begin_at_zero_and_their_means_are_per_hour_second_and_load():
    empty = WhatIfTotals()
    assert set(asdict(empty).values()) == {0}
    assert (empty.dollars_per_hour, empty.hot, empty.wait_seconds, empty.late_share) == (0, 0, 0, 0)
    some = WhatIfTotals(seconds=1800, dollars=2, hot_seconds=900, arrived=50, waited=100, late=5)
    assert (some.dollars_per_hour, some.hot, some.wait_seconds, some.late_share) == (4.0, 0.5, 2.0, 0.1)
    short = WhatIfTotals(seconds=0.5, dollars=1, hot_seconds=0.5, arrived=0.5, waited=1, late=0.25)
    assert (short.dollars_per_hour, short.hot, short.wait_seconds, short.late_share) == (7200, 1, 2, 0.5)


def test_a_simulated_worker_is_the_real_one_with_its_drain():
    (machine,) = whatif_fleet(see(draining("w1", goal=Goal.DESTROY, began=NOW - 30, price=0.4))).machines
    found = simulated_worker(machine, 7, 600.0)
    assert (found.launch_id, found.state, found.revision, found.perf) == ("w1", S.READY, 7, 100.0)
    assert (found.dollars_per_hour, found.storage_dollars_per_hour) == (0.4, 0.01)
    assert (found.drain.since, found.drain.deadline, found.drain.goal) == (NOW - 30, NOW + 570, Goal.DESTROY)
    (machine,) = whatif_fleet(see(draining("w1", goal=Goal.UPDATE))).machines
    assert simulated_worker(machine, 7, 600.0).drain is None, "updates are not simulated"


def test_a_fleet_with_enough_capacity_waits_by_chance_only():
    fleet = advanced(see(worker("w1"), load=steady(60)), 5.0, rate=60.0)
    totals = fleet.tally
    chance = expected_wait(
        60.0, 100.0, perf=100.0, cost=100.0, spread=DEFAULT_TUNING.cost_spread,
        limit=endpoint().target_queue_time,
    )  # fmt: skip
    assert (totals.seconds, totals.hot_seconds) == (5.0, 5.0)
    assert totals.arrived == pytest.approx(300.0)
    assert totals.dollars == pytest.approx(0.3 * 5 / 3600, abs=1e-6)
    assert totals.waited == pytest.approx(300.0 * chance.mean_seconds, rel=1e-4)
    assert totals.late == pytest.approx(300.0 * chance.late_share, rel=1e-4)


@pytest.mark.parametrize(("backlog", "late"), [(950.0, 0.0), (1050.0, 500.0)])
def test_load_is_late_if_the_queue_takes_longer_than_its_target(backlog, late):
    # 100 load/s arrive and are served; the queue stays. 100 load/s serve 1,000 within the target of 10 s, and the
    # second worker boots for longer than that
    seen = see(
        worker("w1"),
        worker("w2", BOOTING, since=NOW - 1),
        load=steady(100),
        config=endpoint(target_queue_time=10),
    )
    fleet = advanced(seen, 5.0, rate=100.0, backlog_load=backlog)
    assert fleet.backlog_load == pytest.approx(backlog)
    assert fleet.tally.late == pytest.approx(late)


def test_small_numbers_of_load_make_no_difference():
    def simulated(scale: float) -> WhatIfTotals:
        boots = worker("w1", BOOTING, since=NOW - 20)
        seen = see(boots, load=steady(80 * scale), learned=knows(100.0 * scale))
        return advanced(seen, 95.0, rate=80 * scale).tally

    large, small = simulated(1.0), simulated(1e-4)
    assert small.late_share == pytest.approx(large.late_share, rel=0.02)
    assert small.wait_seconds == pytest.approx(large.wait_seconds, rel=0.02)
    assert large.late_share > 0.5


def test_a_plan_is_made_when_it_is_due(planned):
    seen = see(worker("w1"), load=steady(60))
    advanced(seen, 20.0, rate=60.0, replan_at=NOW + 7.0, level_at_plan=60.0)
    assert planned[0].now == NOW + 7.0


def test_a_plan_is_made_when_a_worker_is_ready_and_when_a_drain_ends(planned):
    starts = worker("w2", S.STARTING, since=NOW - 17)  # 20 s
    drains = draining("w3", began=NOW + 1, seen=None)  # 2 s
    for workers, now in (((starts,), 3.0), ((drains,), 3.0), ((starts, drains), 3.0)):
        planned.clear()
        seen = see(worker("w1"), *workers, load=steady(60))
        advanced(seen, 4.0, rate=60.0, replan_at=None, level_at_plan=60.0)
        assert planned[0].now == NOW + now


def test_a_stopped_worker_is_inactive_at_the_next_plan(planned):
    drains = draining("w2", began=NOW - 1, seen=None)
    starts = worker("w3", S.STARTING, since=NOW - 10)  # ready at NOW + 10: another plan
    seen = held_before(see(worker("w1"), drains, starts, load=steady(160)), predicted=160)
    fleet = advanced(seen, 12.0, rate=160.0)
    states = [each.state for found in planned for each in found.workers if each.launch_id == "w2"]
    assert states[-1] is S.INACTIVE
    assert fleet.tally.stops == 1


def test_as_many_workers_hold_a_request_as_the_load_keeps_busy(planned):
    four = [worker(f"w{number}") for number in range(4)]
    busy = lambda: sum(each.in_flight for each in planned[0].workers)  # noqa: E731
    advanced(see(*four, load=steady(190), config=endpoint(min_load=400)), 5.0, rate=190.0)
    assert busy() == 2
    planned.clear()
    advanced(
        see(*four, load=steady(190), config=endpoint(min_load=400)), 5.0, rate=190.0, backlog_load=5000.0
    )
    assert busy() == 4, "all of them, while requests wait"
    planned.clear()
    # 400 load/s in the last 5 of 15 s
    load = fold(steady(0), engine_id="e1", sequence=2, at=NOW + 5, window_s=5.0, load=2000.0)
    seen = see(*four, load=steady(0), config=endpoint(min_load=400))
    live = replace(
        seen, now=NOW + 20, load=fold(load, engine_id="e1", sequence=3, at=NOW + 20, window_s=15.0)
    )
    advance_fleet(whatif_fleet(seen), live, seen.config, DEFAULT_TUNING, NOW + 5)
    assert busy() == 2


def test_a_fleet_without_load_and_without_hot_workers_costs_its_disks():
    fleet = advanced(see(worker("c", COLD), load=steady(0), config=endpoint(min_workers=1)), 60.0, rate=0.0)
    assert fleet.tally.dollars_per_hour == pytest.approx(0.01, rel=0.01)
    assert (fleet.tally.hot, fleet.tally.arrived, fleet.backlog_load) == (0.0, 0.0, 0.0)


def test_each_rented_machine_counts_as_a_create_and_each_start_as_a_start():
    fleet = advanced(see(load=steady(300)), 60.0, rate=300.0)
    assert fleet.tally.creates == len(fleet.machines) > 1
    fleet = advanced(see(worker("a", COLD), worker("b", COLD), load=steady(150)), 30.0, rate=150.0)
    assert (fleet.tally.starts, fleet.tally.creates) == (2, 0)


def test_the_assumed_offers_have_ids_of_their_own_and_usual_prices():
    workers = (
        worker("a", price=0.2, kind="1x H100"),
        worker("b", price=0.6, kind="1x H100"),
        worker("c", price=9.0, kind="2x A100", workergroup_id=2),
    )
    found = offers(offer(1, "L4", price=0.5), offer(2, "L4", price=0.4), offer(3, "RTX 4090", price=0.1))
    seen = see(*workers, offers=(found,), workergroups=(group(1), group(2, revision=3)))
    first, second = assumed_offers(seen, NOW)
    ids = [each.id for listed in (first, second) for each in listed.offers]
    assert len(ids) == len(set(ids)) == 4 * DEFAULT_TUNING.whatif_offers_per_kind_max
    # paid on average, then recorded for the kind, then the lowest offer
    prices = {each.kind: each.dph_total for each in first.offers}
    assert prices == {"1x H100": pytest.approx(0.4), "1x RTX 4090": 0.3, "1x L4": 0.4}
    assert {(each.kind, each.num_gpus, each.dph_total) for each in second.offers} == {("2x A100", 2, 9.0)}
    assert (second.workergroup_id, second.revision, second.searched_at) == (2, 3, NOW)


def test_nothing_happens_before_the_fleets_own_time():
    fleet = whatif_fleet(see(worker("w1")))
    for until in (NOW, NOW - 1):
        assert advance_fleet(fleet, see(load=LoadHistory()), endpoint(), DEFAULT_TUNING, until) is fleet
