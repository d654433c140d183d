"""A pause of the engine: missing reports count only for the time in which the engine received reports."""

from dataclasses import replace

import pytest

from policy.capacity.performance import PerfEstimates
from policy.planning.plan_builder import PlanBuilder
from policy.planning.scale_down import release_order
from policy.state.worker import Goal
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, brief, decide, draining, group, see, steady, worker

ASLEEP = NOW - 300
"""The last report of every worker. The engine's machine was then suspended for five minutes."""


def woken(*workers, **given):
    """The engine resumed three seconds ago, and no worker has reported since."""
    return see(*workers, **{"load": steady(5), "listening_since": NOW - 3} | given)


@pytest.mark.parametrize("suspect_since", [None, ASLEEP - 5])
def test_a_worker_is_not_rebooted_after_an_engine_pause(suspect_since):
    quiet = worker("w", reported_at=ASLEEP, suspect_since=suspect_since)
    assert "reboot w" in brief(decide(woken(quiet, listening_since=NOW - 9000)))
    assert "reboot w" not in brief(decide(woken(quiet)))


def test_a_worker_without_reports_after_the_pause_is_repaired():
    dead = worker("w", reported_at=ASLEEP)
    within = woken(dead, listening_since=NOW - 119)
    assert "reboot w" not in brief(decide(within))
    assert "reboot w" in brief(decide(replace(within, listening_since=NOW - 121)))


def test_a_boot_that_ended_during_the_pause_is_not_given_up():
    boots = worker("w", S.MODEL_LOADING, since=NOW - 400)
    assert "destroy w" in brief(decide(woken(boots, listening_since=NOW - 9000)))
    decided = decide(woken(boots))
    assert "destroy w" not in brief(decided)
    assert not decided.failed_hosts
    assert "destroy w" in brief(decide(woken(boots, listening_since=NOW - 90)))


def test_a_listing_from_before_the_pause_does_not_end_a_start():
    stuck = worker("w", S.STARTING, since=NOW - 310, market_status="stopped")
    asked = woken(stuck, listed_at=NOW - 305)
    assert "stop w" not in brief(decide(asked))
    assert "stop w" in brief(decide(replace(asked, listed_at=NOW - 1)))


@pytest.mark.parametrize("goal", [Goal.DESTROY, Goal.UPDATE])
def test_a_drain_whose_deadline_passed_in_the_pause_waits_for_a_report(goal):
    late = draining(
        "w", goal, in_flight=1, load=5.0, began=ASLEEP - 60, deadline=NOW - 100, reported_at=ASLEEP
    )
    assert not any(order.startswith(("destroy", "update")) for order in brief(decide(woken(late))))
    assert brief(decide(woken(late, listening_since=NOW - 21)))[0].split()[0] in ("destroy", "update")


def test_missing_reports_count_from_the_restart():
    # Suspected long ago, restarted 5 s ago: the 20 s begin at the restart.
    back = worker("w", since=NOW - 5, suspect_since=NOW - 100, reboots=1, reported_at=NOW - 100)
    assert "destroy w" not in brief(decide(see(back, load=steady(5))))
    assert "destroy w" in brief(decide(see(back.replace(since=NOW - 20), load=steady(5))))


def test_an_outdated_worker_is_released_before_a_more_expensive_one():
    cheap_old, dear_new = worker("old", price=0.1), worker("new", price=0.9, revision=2)
    seen = see(cheap_old, dear_new, workergroups=(group(revision=2),))
    builder = PlanBuilder(seen, DEFAULT_TUNING, PerfEstimates.of(seen.workers, seen.learned))
    order = sorted((cheap_old, dear_new), key=lambda each: release_order(builder, each))
    assert [each.launch_id for each in order] == ["old", "new"]
