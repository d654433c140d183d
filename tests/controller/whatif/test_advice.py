"""Advice: a second config beside the live one. Two shadows live through one load; nothing real is touched."""

from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from controller.whatif.advice import Advice, begin, said, summary
from controller.whatif.fleet import whatif_fleet
from controller.whatif.replay import advance_advice, advance_fleet
from policy.planning.planner import plan
from policy.state.observation import Observation
from policy.tuning import DEFAULT_TUNING
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    BOOTING,
    COLD,
    NOW,
    decide,
    draining,
    endpoint,
    group,
    held_before,
    see,
    steady,
    worker,
)
from tests.policy.planning.test_closed_loop import jitter
from tests.policy.world import World


def seen_in(world: World) -> Observation:
    return Observation(
        now=world.now,
        config=world.config,
        workergroups=(group(),),
        workers=world.workers,
        load=world.load,
        offers=world.offers,
        learned=world.learned,
        listed_at=world.listed_at,
        launch_ids=tuple(f"{number:012x}" for number in range(64)),
        memory=world.memory,
    )


def lived(world: World, advice: Advice, seconds: float, arrivals: object) -> Advice:
    """The live endpoint lives, the advice beside it."""
    for number in range(int(seconds / 5)):
        world.run(5.0, arrivals)
        if number % 3 == 0:
            seen = seen_in(world)
            advice = advance_advice(advice, seen)
    return advice


def test_the_live_config_in_imagination_costs_what_it_costs_in_truth() -> None:
    world = World(endpoint(target_util=0.6, min_workers=2, cold_mult=1.5))
    arrivals = jitter(400, 1)
    world.run(1800, arrivals)
    advice = begin(seen_in(world), EndpointPatch(target_util=0.9), dollars=0.0)
    spent, since = 0.0, world.now
    for number in range(360):
        world.run(5.0, arrivals)
        spent += sum(each.burn_dollars_per_hour for each in world.workers) * 5 / 3600
        if number % 3 == 0:
            seen = seen_in(world)
            advice = advance_advice(advice, seen)
    truth = spent / (world.now - since) * 3600
    assert advice.live.tally.dollars_per_hour == pytest.approx(truth, rel=0.1)
    assert advice.live.tally.dollars_per_hour > 1.2 * advice.advised.tally.dollars_per_hour
    assert advice.live.tally.wait_seconds < advice.advised.tally.wait_seconds < 10
    assert advice.live.tally.arrived == pytest.approx(400 * advice.live.tally.seconds, rel=0.05)


def test_the_same_config_beside_itself_differs_in_nothing() -> None:
    world = World(endpoint(target_util=0.7, min_workers=1))
    world.run(900, jitter(300, 2))
    advice = begin(seen_in(world), EndpointPatch(target_util=0.7), dollars=0.0)
    advice = lived(world, advice, 1200, jitter(300, 3))
    assert advice.live == advice.advised
    assert advice.live.clock > advice.since


def test_the_live_fleet_and_plan_are_not_touched() -> None:
    seen = see(worker("w1"), worker("w2", COLD), load=steady(150))
    before, live = seen, decide(seen)
    later = replace(seen, now=NOW + 60, load=steady(150, until=NOW + 60, seconds=360))
    advice = begin(seen, EndpointPatch(target_util=0.3), dollars=0.0)
    assert advance_advice(advice, later).advised.tally.creates > 0
    assert seen == before
    assert decide(seen) == live


def test_shadows_live_behind_the_engines_words_and_stand_still_without_them() -> None:
    seen = see(worker("w1"), load=steady(50))
    advice = begin(seen, EndpointPatch(target_util=0.5), dollars=0.0)
    later = replace(seen, now=NOW + 3600)  # no engine report for an hour: the load is unknown
    assert advance_advice(advice, later).live.clock == NOW
    later_advice = replace(later, load=steady(50, until=NOW + 60, seconds=360))
    assert advance_advice(advice, later_advice).live.clock == NOW + 60 - DEFAULT_TUNING.whatif_lag_seconds


def test_a_long_pause_is_caught_up_with_in_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("controller.controller.plan", lambda *given: made.append(1) or plan(*given))
    seen = see(worker("w1"), worker("w2"), load=steady(0), config=endpoint(min_load=1))
    long = replace(seen, now=NOW + 86_400, load=steady(0, until=NOW + 86_400, seconds=86_700))
    shadow = advance_fleet(whatif_fleet(seen), long, long.config, DEFAULT_TUNING, NOW + 86_000)
    assert shadow.clock == NOW + 86_000
    assert len(made) <= 2 * DEFAULT_TUNING.whatif_steps_max + 2
    assert [machine.state for machine in shadow.machines].count(S.READY) == 1


def test_what_boots_comes_when_its_kind_usually_does() -> None:
    seen = see(worker("w1", BOOTING, since=NOW - 20), load=steady(80))
    until = replace(seen, now=NOW + 200, load=steady(80, until=NOW + 200, seconds=500))
    before = advance_fleet(whatif_fleet(seen), until, seen.config, DEFAULT_TUNING, NOW + 95)
    after = advance_fleet(whatif_fleet(seen), until, seen.config, DEFAULT_TUNING, NOW + 106)
    assert (before.hot, after.hot) == (0, 1)  # knows(): 120 s from its launch
    assert before.backlog_load > 0
    assert before.tally.late > 0


def test_a_drain_ends_and_a_stopped_worker_costs_its_disk() -> None:
    seen = held_before(see(draining("w1", began=NOW, seen=None), worker("w2"), load=steady(50)), predicted=50)
    later = replace(seen, now=NOW + 60, load=steady(50, until=NOW + 60, seconds=360))
    shadow = advance_fleet(whatif_fleet(seen), later, endpoint(min_workers=2), DEFAULT_TUNING, NOW + 40)
    states = {machine.launch_id: machine.state for machine in shadow.machines}
    assert states == {"w1": S.INACTIVE, "w2": S.READY}
    assert shadow.burn_dollars_per_hour == pytest.approx(0.31)


def test_the_market_in_imagination_always_has_one_more() -> None:
    seen = see(load=steady(500), offers=())  # no search was made, but a kind is known
    later = replace(seen, now=NOW + 400, load=steady(500, until=NOW + 400, seconds=700))
    shadow = advance_fleet(whatif_fleet(seen), later, endpoint(max_workers=16), DEFAULT_TUNING, NOW + 380)
    assert shadow.hot >= 5
    assert {machine.price for machine in shadow.machines} == {0.3}


def test_bounds_hold_in_imagination_too() -> None:
    seen = see(load=steady(5000))
    later = replace(seen, now=NOW + 900, load=steady(5000, until=NOW + 900, seconds=1200))
    for config in (endpoint(max_workers=3), endpoint(dollars_per_hour_max=0.95)):
        shadow = advance_fleet(whatif_fleet(seen), later, config, DEFAULT_TUNING, NOW + 880)
        assert len(shadow.machines) == 3


def test_a_stopped_config_costs_disks_only() -> None:
    seen = see(worker("w1"), worker("w2"), load=steady(50))
    later = replace(seen, now=NOW + 120, load=steady(50, until=NOW + 120, seconds=420))
    advice = begin(seen, EndpointPatch(endpoint_state="stopped"), dollars=0.0)
    advice = advance_advice(advice, later)
    assert advice.advised.hot == 0
    assert advice.advised.burn_dollars_per_hour == pytest.approx(0.02)
    assert advice.advised.tally.late_share > 0.5


def test_advice_is_small_and_survives_its_own_json() -> None:
    fleet = [worker(f"{number:012x}", perf=123.456) for number in range(100)]
    seen = see(*fleet, load=steady(9000), config=endpoint(max_workers=100))
    advice = begin(seen, EndpointPatch(target_util=0.9, error_budget=0.02), dollars=0.0)
    later = replace(seen, now=NOW + 60, load=steady(9000, until=NOW + 60, seconds=360))
    advice = advance_advice(advice, later)
    adapter = TypeAdapter(Advice)
    text = adapter.dump_json(advice)
    assert adapter.validate_json(text) == advice
    assert len(text) < 40_000


def test_advice_is_the_same_until_there_is_enough_load_to_go_on() -> None:
    seen = see(worker("w1"), load=steady(50))
    advice = begin(seen, EndpointPatch(target_util=0.5), dollars=0.0)
    for seconds, same in ((24, True), (25, False)):
        later = replace(seen, now=NOW + seconds, load=steady(50, until=NOW + seconds, seconds=300 + seconds))
        assert (advance_advice(advice, later) is advice) is same


def test_a_summary_tells_both_lives() -> None:
    seen = see(worker("w1"), load=steady(50))
    advice = begin(seen, EndpointPatch(target_util=0.5, error_budget=0.02), dollars=0.0)
    assert said(advice) == "target_util = 0.5, error_budget = 0.02"
    assert "nothing to compare yet" in summary(advice)
    later = replace(seen, now=NOW + 615, load=steady(50, until=NOW + 615, seconds=900))
    later_advice = summary(advance_advice(advice, later))
    assert later_advice.startswith("over 10 min, in imagination: the live config 1.0 hot, $0.30/h, waits ")
    assert "advised (target_util = 0.5, error_budget = 0.02) " in later_advice


def test_a_larger_error_budget_is_never_hotter_than_a_smaller_one() -> None:
    world = World(endpoint(target_util=0.9))
    world.run(900, jitter(400, 4, requests_per_second=0.5))
    hot = {}
    for budget in (0.02, 0.01, 0.001):
        other = World(world.config)
        other.__dict__.update(world.__dict__)
        seen = seen_in(other)
        advice = begin(seen, EndpointPatch(error_budget=budget), dollars=0.0)
        hot[budget] = lived(other, advice, 600, jitter(400, 5)).advised.tally.hot
    assert hot[0.02] <= hot[0.01] <= hot[0.001]
