"""Machines that were stopped before their first load: not cold capacity, and one boot each."""

from dataclasses import replace

import pytest

from policy.state.lifecycle import advance
from policy.state.reconcile import fold_listing
from policy.state.worker import MachineStats
from stoker_wire.market import Instance
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    NOW,
    after,
    brief,
    decide,
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


def made(name="made", **given):
    """A machine that was stopped an hour ago, a minute after it was rented."""
    return worker(name, S.CREATED, **{"launched_at": NOW - 3660, "since": NOW - 3600} | given)


def later(seen, decided, seconds):
    """The endpoint `seconds` after the plan: its operations have ended, and a listing was applied."""
    then = after(seen, decided)
    now = seen.now + seconds
    return replace(
        then,
        now=now,
        workers=tuple(
            each.replace(operation="", market_status="loading")
            for each in then.workers
            if each.operation != "destroy"
        ),
        load=steady(0, until=now),
        offers=(replace(plenty(), searched_at=now),),
        listed_at=now - 1,
    )


@pytest.mark.parametrize("given", [{"min_workers": 2}, {"min_workers": 2, "min_cold_load": 200}])
def test_min_workers_starts_a_machine_that_never_loaded_and_counts_it_once_loaded(given):
    seen = held_before(see(worker("cold", S.INACTIVE), made(), config=endpoint(**given)))
    decided = decide(seen)
    assert brief(decided) == ["activate made"]
    assert decided.operations[0].reason.startswith("below min_workers, 1 of 2 workers loaded or booting")


def test_the_cold_workers_of_a_workergroup_start_one_too():
    seen = held_before(see(made(), workergroups=(group(cold_workers=1),)))
    assert brief(decide(seen)) == ["activate made"]


def test_a_floor_that_a_start_satisfies_rents_nothing():
    seen = held_before(see(made(), config=endpoint(min_workers=1)))
    done = []
    for seconds in (5, 10, 30, 60):
        decided = decide(seen)
        done += brief(decided)
        seen = later(seen, decided, seconds)
    assert done == ["activate made"]
    (loads,) = seen.workers
    loaded = advance(loads, S.READY, seen.now, perf=100.0, loaded_once=True, reported_at=seen.now)
    assert brief(decide(held_before(replace(seen, workers=(loaded,))))) == ["drain made to stop"]


def test_its_first_boot_gets_a_full_boot_deadline():
    seen = see(made(), load=steady(50))
    decided = decide(seen)
    assert brief(decided) == ["activate made"]
    boots = replace(later(seen, decided, 60), load=steady(50, until=NOW + 60))
    assert brief(decide(boots)) == []
    assert brief(decide(replace(boots, now=NOW + 361, load=steady(50, until=NOW + 361))))[:1] == [
        "destroy made"
    ]


def test_a_machine_over_the_budget_is_replaced_by_an_affordable_one():
    found = offers(offer(1, price=0.3))
    seen = see(made(price=0.9), config=endpoint(min_workers=1, dollars_per_hour_max=0.5), offers=(found,))
    assert brief(decide(held_before(seen))) == ["recruit 1x RTX 4090 1", "destroy made"]


def test_a_machine_over_the_budget_is_kept_without_an_alternative():
    seen = see(made(price=0.9), config=endpoint(min_workers=1, dollars_per_hour_max=0.5), offers=(offers(),))
    assert brief(decide(held_before(seen))) == []


def test_a_machine_that_no_floor_needs_is_released():
    assert brief(decide(held_before(see(made())))) == ["destroy made"]


def test_a_machine_stopped_by_the_market_while_loading_is_not_restarted_at_once():
    """It was outbid: the marketplace would accept each start and not carry it out."""
    boots = worker("w1", S.LOADING, since=NOW - 20, instance_id=7)
    shown = Instance(id=7, actual_status="exited", intended_status="stopped", label="stoker:e:w1")
    listing = fold_listing(
        [boots], [shown], now=NOW, asked_at=NOW - 1, label_prefix="stoker:e:", learned=MachineStats()
    )
    (stopped,) = listing.workers
    assert (stopped.state, stopped.starts_given_up) == (S.CREATED, 1)
    seen = see(stopped, config=endpoint(min_workers=1), offers=(offers(),))
    assert brief(decide(seen)) == []
    rested = replace(seen, now=NOW + 300, offers=(offers(at=NOW + 299),), listed_at=NOW + 299)
    assert brief(decide(rested)) == ["activate w1"]


def test_another_machine_is_used_in_the_meantime():
    resting = made(since=NOW - 10, starts_given_up=1)
    decided = decide(held_before(see(resting, config=endpoint(min_workers=1))))
    assert brief(decided) == ["recruit 1x RTX 4090 1", "destroy made"]
