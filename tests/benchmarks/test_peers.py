"""Peers' rules follow their sources, on signals with a result that can be computed by hand."""

import itertools
from dataclasses import dataclass

import pytest

from benchmarks.scaling.peers.foresight import RateOracle
from benchmarks.scaling.peers.replicas import Peer
from benchmarks.scaling.peers.rules import (
    HPA,
    Dstack,
    KnativeKPA,
    RayServe,
    RunPodQueueDelay,
    SkyServe,
    VastRule,
)
from simulation.run import run


@dataclass
class Seen:
    now: float = 0.0
    arrived: int = 0
    arrived_load: float = 0.0
    ongoing: int = 0
    oldest_wait: float = 0.0
    busy: int = 0
    ready: int = 0
    slots: int = 1


def played(rule, seconds, current, **signals):
    """Evaluates the rule at its period, and returns the wanted replicas with times; a callable signal gets the time."""
    wants, at = [], 0.0
    while at <= seconds:
        seen = Seen(
            now=at, **{name: value(at) if callable(value) else value for name, value in signals.items()}
        )
        current = rule.want(seen, current)
        wants.append((at, current))
        at += rule.period
    return wants


def first(wants, wanted):
    return next(at for at, each in wants if each == wanted)


def test_skyserve_acts_after_300_seconds_in_a_row():
    # 2 requests/s of 1 s at 0.8 per replica: three
    wants = played(SkyServe(1.0), 600.0, 1, arrived=lambda t: int(2 * t))
    assert first(wants, 3) == pytest.approx(320.0, abs=40.0)


def test_one_contrary_tick_resets_skyserve():
    rule = SkyServe(1.0)
    wants = played(rule, 290.0, 1, arrived=lambda t: int(2 * t))
    wants += played(rule, 290.0, 1, arrived=0)
    assert {each for _, each in wants} == {1}


def test_kpa_panics_at_twice_its_capacity_and_does_not_shrink_in_panic():
    rule = KnativeKPA()
    wants = played(rule, 120.0, 2, ready=2, ongoing=lambda t: 14 if t < 10 else 0)
    # 14 in flight at 0.7 each: twenty; panic lasts 60 s after the last panicking window
    assert wants[0][1] == 20
    assert dict(wants)[60.0] == 20
    assert wants[-1][1] <= 2


def test_kpa_goes_to_zero_after_its_grace():
    wants = played(KnativeKPA(), 100.0, 1, ready=1, ongoing=0)
    assert first(wants, 0) == 30.0


def test_kpa_gives_up_at_most_half_of_what_is_ready_at_a_time():
    # nothing is in flight: eight ready keep four wanted, two keep one, and only the last one is released
    assert played(KnativeKPA(), 0.0, 8, ready=8, ongoing=0)[0][1] == 4
    assert played(KnativeKPA(), 200.0, 2, ready=2, ongoing=0)[-1][1] == 1
    assert played(KnativeKPA(), 200.0, 1, ready=1, ongoing=0)[-1][1] == 0


def test_ray_serve_grows_after_30_and_shrinks_after_600_seconds():
    wants = played(RayServe(), 60.0, 1, ready=1, ongoing=8)
    assert first(wants, 4) == 30.0
    wants = played(RayServe(), 700.0, 4, ready=4, ongoing=2)
    assert first(wants, 1) == 600.0
    assert played(RayServe(), 0.0, 0, ongoing=1) == [(0.0, 1)]


def test_ray_serve_adds_nothing_to_its_first_replica_until_that_runs():
    wants = played(RayServe(), 120.0, 0, ready=0, ongoing=50)
    assert {each for _, each in wants} == {1}


def test_the_last_replica_of_ray_serve_goes_alone():
    wants = played(RayServe(), 700.0, 4, ready=4, ongoing=0)
    assert wants[-1][1] == 1
    assert played(RayServe(), 700.0, 1, ready=1, ongoing=0)[-1][1] == 0


def test_hpa_tolerates_a_tenth_and_grows_by_at_most_twice_or_four():
    assert played(HPA(), 0.0, 10, busy=7, ready=10)[0][1] == 10
    assert played(HPA(), 0.0, 2, busy=2, ready=2)[0][1] == 3
    shrinking = played(HPA(), 400.0, 10, busy=lambda t: 7 if t < 1 else 1, ready=10)
    assert dict(shrinking)[285.0] == 10
    assert shrinking[-1][1] == 2


def test_hpa_remembers_what_it_grew_to_for_five_minutes():
    # ten are busy until second 15, then one: the recommendation that made it grow is among those of the last 300 s
    wants = played(HPA(), 330.0, 10, busy=lambda t: 10 if t < 20 else 1, ready=10)
    assert dict(wants)[15.0] == 15
    assert dict(wants)[300.0] == 15
    assert wants[-1][1] == 2


def test_hpa_counts_replicas_that_are_not_ready_as_idle_when_it_grows():
    # two of four are ready and busy: over all four that is 50 %, below the target, so nothing is added
    assert played(HPA(), 0.0, 4, busy=2, ready=2)[0][1] == 4
    # nine of ten: 90 % over all is 13
    assert played(HPA(), 0.0, 10, busy=9, ready=9)[0][1] == 13


def test_the_rate_oracle_has_what_the_next_minute_needs_before_it_comes():
    # ten requests of 30 s in minute 2: five workers, √5 spare; woken a lead before
    rule = RateOracle([120.0 + n for n in range(10)], [30.0] * 10, lead_seconds=30.0)
    wants = dict(played(rule, 240.0, 0))
    assert (wants[85.0], wants[90.0], wants[175.0], wants[180.0]) == (0, 8, 8, 0)
    assert played(rule, 0.0, 0, ongoing=3)[0][1] == 3


def test_dstack_waits_after_each_change():
    rule = Dstack(1.0)
    wants = played(rule, 900.0, 1, arrived=lambda t: int(t * (0.7 if t < 100 else 3.0)))
    changes = [at for (at, each), (_, before) in zip(wants[1:], wants, strict=False) if each != before]
    assert all(later - earlier >= 300.0 for earlier, later in itertools.pairwise(changes))


def test_runpod_adds_one_per_four_seconds_of_delay():
    wants = played(RunPodQueueDelay(), 12.0, 1, ongoing=10, oldest_wait=5.0)
    assert wants[-1][1] == 5
    assert played(RunPodQueueDelay(), 6.0, 3, ongoing=0)[-1][1] == 0


def test_vasts_rule_divides_load_by_target_util():
    # 900 load/s at 0.9 is 1000, ten workers of 100
    wants = played(VastRule(100.0), 120.0, 1, arrived_load=lambda t: 900.0 * t)
    assert wants[-1][1] == 10
    assert played(VastRule(100.0), 0.0, 1)[0][1] == 1


def test_a_peer_that_asks_for_more_gets_it_and_releases_it(steady, even):
    trace = even(every=0.25, work=90.0, seconds=1800.0)
    result = run(trace, Peer(KnativeKPA()), steady, warmup_seconds=900.0)
    assert result.within_10 > 0.95
    assert result.utilisation < 0.8
