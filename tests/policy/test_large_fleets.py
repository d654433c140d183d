"""Planning time is linear in the number of workers. Measured in function calls, which are equal on every machine."""

import sys
from dataclasses import replace

import pytest

from policy.planning.planner import plan
from tests.policy.builders import (
    BOOTING,
    COLD,
    IDS,
    NOW,
    draining,
    endpoint,
    find_faults,
    group,
    held_before,
    plenty,
    see,
    steady,
    worker,
)

FLEET = 100
BUDGETS = (None, 9.0, 1e6)
"""No budget, a budget far too small, and a sufficient one."""


def _config(budget, **given):
    return endpoint(max_workers=10_000, dollars_per_hour_max=budget, **given)


def _fleet(count, *given, make=worker, **more):
    return (make(f"w{number:05}", *given, price=0.2 + number % 7 / 100, **more) for number in range(count))


def _wake(count, budget):
    return see(*_fleet(count, COLD), config=_config(budget), load=steady(100.0 * count), offers=())


def _call_off_drains(count, budget):
    fleet = _fleet(count, make=draining, seen=None)
    return see(*fleet, config=_config(budget), load=steady(100.0 * count), offers=())


def _recruit(count, budget):
    ids = tuple(f"{number:012x}" for number in range(count))
    groups = (group(max_workers=10_000, test_workers=3),)
    load, found = steady(100.0 * count), (plenty(count),)
    return see(config=_config(budget), load=load, offers=found, launch_ids=ids, workergroups=groups)


def _recruit_beside_many(count, budget):
    fleet = _fleet(count)
    return see(*fleet, config=_config(budget), load=steady(100.0 * (count + len(IDS))))


def _drain(count, budget):
    return held_before(see(*_fleet(count), config=_config(budget), workergroups=(group(min_load=250.0),)))


def _stop(count, budget):
    return see(*_fleet(count, make=draining), config=_config(budget))


def _stop_beyond_the_budget(count, _):
    return see(*_fleet(count, BOOTING, since=NOW - 10), config=_config(1.0), load=steady(100.0 * count))


def _release(count, budget):
    groups = (group(cold_workers=2, min_cold_load=250.0),)
    return held_before(see(*_fleet(count, COLD), config=_config(budget), workergroups=groups))


def _release_beyond_max_workers(count, _):
    silent = see(*_fleet(count, COLD), config=endpoint(max_workers=1), load=steady(0, until=NOW - 1000))
    return replace(silent, workergroups=(group(max_workers=1),))


def _delete(count, budget):
    return see(*_fleet(count, COLD), config=_config(budget), deleting=True)


def _calls(observation):
    """The number of function calls of planning and validation, and of planned operations."""
    count = 0

    def counted(_, event, __):
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        decided = plan(observation)
        faults = find_faults(observation, decided)
    finally:
        sys.setprofile(None)
    assert faults == ()
    return count, len(decided.operations)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    "fleet",
    [
        _wake,
        _call_off_drains,
        _recruit,
        _recruit_beside_many,
        _drain,
        _stop,
        _stop_beyond_the_budget,
        _release,
        _release_beyond_max_workers,
        _delete,
    ],
    ids=lambda fleet: fleet.__name__.strip("_"),
)
def test_planning_time_is_linear_in_the_number_of_workers(fleet, budget):
    once, _ = _calls(fleet(FLEET, budget))
    twice, operations = _calls(fleet(2 * FLEET, budget))
    assert operations > 0
    assert twice < 2.2 * once
