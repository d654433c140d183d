"""Boots and starts that take longer than expected."""

from stoker_wire.states import WorkerState as S
from tests.policy.builders import BOOTING, COLD, NOW, brief, decide, endpoint, knows, see, steady, worker


def test_a_cold_worker_is_started_if_a_boot_takes_minutes_longer():
    booting = worker("new", BOOTING, since=NOW - 10, perf_estimate=100.0)
    seen = see(worker("hot"), booting, worker("cold", COLD), load=steady(190), config=endpoint())
    assert brief(decide(seen)) == ["activate cold"]
    # 110 of 120 s have passed: it is ready before a start of 20 s would be.
    nearly = booting.replace(launched_at=NOW - 110)
    soon = see(
        worker("hot"), nearly, worker("cold", COLD), load=steady(190), config=endpoint(), learned=knows()
    )
    assert "activate cold" not in brief(decide(soon))


def test_an_overdue_boot_does_not_count_as_capacity():
    booting = worker("slow", BOOTING, since=NOW - 200, perf_estimate=100.0)
    seen = see(booting, load=steady(50), config=endpoint())
    decided = decide(seen)
    # Boots take 120 s: at 240 s another machine is rented.
    assert brief(decided) == []
    assert decided.replan_at is not None
    assert decided.replan_at <= NOW + 40.0
    late = decide(see(booting.replace(launched_at=NOW - 241), load=steady(50), config=endpoint()))
    assert brief(late) == ["recruit 1x RTX 4090 1"]


def test_a_second_worker_is_started_beside_an_overdue_start():
    starting = worker("stuck", S.STARTING, since=NOW - 39)
    seen = see(starting, worker("other", COLD), load=steady(50), config=endpoint())
    assert brief(decide(seen)) == []
    raced = see(starting.replace(since=NOW - 41), worker("other", COLD), load=steady(50), config=endpoint())
    assert brief(decide(raced)) == ["activate other"]
