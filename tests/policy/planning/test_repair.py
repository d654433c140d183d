from dataclasses import replace

import pytest

from policy.planning.repair import boot_deadline
from policy.state.liveness import mark_unresponsive
from policy.state.observation import Observation
from policy.state.plan import PollInstances
from policy.state.worker import ORPHAN_GROUP, Goal, HostFailure, MachineStats
from policy.state.worker_events import fold_operation_result
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    NOW,
    brief,
    decide,
    draining,
    endpoint,
    group,
    knows,
    offer,
    offers,
    see,
    steady,
    worker,
)


def test_a_boot_deadline_is_three_times_what_the_kind_takes():
    # learned: 120 s, so 360
    boots = worker("w1", S.MODEL_LOADING, since=NOW - 360)
    decided = decide(see(boots))
    assert brief(decided) == ["destroy w1"]
    assert "loading its model for 6 min, allowed 6 min" in decided.operations[0].reason
    (blamed,) = decided.failed_hosts
    assert (blamed.machine_id, blamed.until) == (boots.machine_id, NOW + 3600)
    assert brief(decide(see(worker("w1", S.MODEL_LOADING, since=NOW - 359)))) == []


def test_a_container_that_runs_without_a_report_is_named():
    silent = worker("w1", S.MODEL_LOADING, since=NOW - 360, launched_at=NOW - 360, market_status="running")
    said = "no worker in it ever reported: the start script ended or cannot reach the engine"
    assert said in decide(see(silent.replace(reported_at=None))).operations[0].reason
    assert said not in decide(see(silent.replace(reported_at=NOW - 5))).operations[0].reason


def test_a_boot_deadline_has_a_floor_and_a_ceiling():
    boots, tuning = worker("w1", S.LOADING, since=NOW), Tuning()
    assert boot_deadline(boots, see(learned=knows(boot=1)), tuning) == NOW + 300
    assert boot_deadline(boots, see(learned=knows(boot=9000)), tuning) == NOW + 1800
    assert boot_deadline(boots, see(learned=MachineStats()), tuning) == NOW + 1200


def test_the_time_spent_loading_counts_from_the_launch():
    boots = worker("w1", S.MODEL_LOADING, since=NOW - 10, launched_at=NOW - 360)
    assert brief(decide(see(boots))) == ["destroy w1"]


def test_a_start_that_the_marketplace_does_not_carry_out_is_stopped_and_tried_later():
    stuck = worker("w1", S.STARTING, since=NOW - 45, market_status="stopped")
    seen = see(stuck, load=steady(50))
    decided = decide(seen)
    assert brief(decided) == ["stop w1"]
    resting = worker("w1", COLD, since=NOW - 10, starts_given_up=1)
    assert brief(decide(replace(seen, workers=(resting,)))) == ["recruit 1x RTX 4090 1"]
    rested = resting.replace(since=NOW - 300)
    assert brief(decide(replace(seen, workers=(rested,)))) == ["activate w1"]


def test_a_worker_is_released_when_its_second_start_hangs():
    stuck = worker("w1", S.STARTING, since=NOW - 45, market_status="exited", starts_given_up=1)
    assert brief(decide(see(stuck)))[0] == "destroy w1"


def test_a_start_is_not_given_up_without_a_listing_since_it_began():
    stuck = worker("w1", S.STARTING, since=NOW - 45, market_status="stopped")
    assert brief(decide(see(stuck, listed_at=NOW - 46))) == ["poll"]


def test_a_first_boot_that_the_marketplace_stopped_is_released():
    outbid = worker("w1", S.LOADING, since=NOW - 45, loaded_once=False, market_status="stopped")
    decided = decide(see(outbid))
    assert brief(decided)[0] == "destroy w1"
    assert "stopped on the marketplace for 45 s before its first load" in decided.operations[0].reason
    assert "destroy w1" not in brief(decide(see(outbid.replace(since=NOW - 44))))
    assert "destroy w1" not in brief(decide(see(outbid.replace(market_status="created"))))


def test_a_running_start_has_until_its_deadline():
    # learned: 20 s, four times that is under the floor of 90
    assert brief(decide(see(worker("w1", S.STARTING, since=NOW - 89, market_status="running")))) == []
    assert brief(decide(see(worker("w1", S.STARTING, since=NOW - 90, market_status="running")))) == [
        "destroy w1"
    ]


def test_a_worker_that_breaks_on_its_first_boot_is_released_and_its_host_remembered():
    broken = worker("w1", S.ERROR, error="CUDA out of memory", loaded_once=False)
    decided = decide(see(broken))
    assert brief(decided) == ["destroy w1"]
    assert "CUDA out of memory" in decided.operations[0].reason
    assert decided.failed_hosts


def test_a_worker_that_once_ran_is_rebooted_once_and_then_released():
    broken = worker("w1", S.ERROR, error="Xid 79", loaded_once=True)
    assert brief(decide(see(broken))) == ["reboot w1"]
    assert brief(decide(see(broken.replace(reboots=1)))) == ["destroy w1"]


def test_a_failed_host_is_not_tried_again_within_the_hour():
    blamed = HostFailure(machine_id=1001, until=NOW + 1, reason="x")
    seen = see(offers=(offers(offer(1)),), config=endpoint(min_load=50))
    assert brief(decide(replace(seen, learned=replace(knows(), failed_hosts=(blamed,))))) == []
    forgiven = replace(blamed, until=NOW)
    assert brief(decide(replace(seen, learned=replace(knows(), failed_hosts=(forgiven,))))) == [
        "recruit 1x RTX 4090 1"
    ]


def failures(count, last=NOW - 100):
    return tuple(
        HostFailure(
            machine_id=5000 + n, until=last + 3600, reason="exit 1", workergroup_id=1, failed_at=last - 10 * n
        )
        for n in range(count)
    )


def test_launches_that_fail_on_host_after_host_are_the_templates_fault():
    seen = see(config=endpoint(min_load=50), learned=replace(knows(), failed_hosts=failures(5)))
    decided = decide(seen)
    assert brief(decided) == []
    assert decided.waits[0].code == "worker_failed"
    assert "check its template (last: exit 1)" in decided.waits[0].reason
    assert len(brief(decide(replace(seen, learned=replace(knows(), failed_hosts=failures(4)))))) == 1


def test_a_failing_template_is_tried_once_in_ten_minutes():
    learned = replace(knows(), failed_hosts=failures(5, last=NOW - 600))
    seen = see(config=endpoint(min_workers=3), learned=learned)
    assert len(brief(decide(seen))) == 1


def test_a_suspect_is_no_capacity_at_once_and_is_rebooted_after_twenty_seconds():
    ill = worker("ill", suspect_since=NOW - 19)
    fleet = [worker(f"w{n}") for n in range(4)]
    seen = see(ill, *fleet, load=steady(450))
    assert brief(decide(seen)) == ["recruit 1x RTX 4090 1"]
    assert "reboot ill" in brief(decide(replace(seen, workers=(ill.replace(suspect_since=NOW - 20), *fleet))))


def test_a_silent_worker_is_rebooted_then_released():
    fleet = [worker(f"w{n}") for n in range(4)]
    silent = worker("ill", reported_at=NOW - 121)
    assert brief(decide(see(silent, *fleet, load=steady(390)))) == ["reboot ill"]
    assert brief(decide(see(silent.replace(reboots=1), *fleet, load=steady(390)))) == ["destroy ill"]
    assert brief(decide(see(silent.replace(reported_at=NOW - 120), *fleet, load=steady(490)))) == []


def test_missing_reports_of_most_workers_are_not_their_fault():
    fleet = [worker(f"w{n}", reported_at=NOW - 500) for n in range(3)]
    decided = decide(see(*fleet, worker("w9"), load=steady(390)))
    assert brief(decided) == []
    assert decided.targets.hot_ready == 400


def test_missing_engine_reports_are_no_evidence_against_workers():
    fleet = [worker("w1", reported_at=NOW - 500), worker("w2", reported_at=NOW - 500), worker("w3")]
    assert brief(decide(see(*fleet, load=steady(290, until=NOW - 500)))) == []


def test_at_most_a_fifth_is_repaired_at_a_time():
    fleet = [worker(f"w{n}", suspect_since=NOW - 60) for n in range(3)] + [worker(f"x{n}") for n in range(7)]
    decided = decide(see(*fleet, load=steady(690), config=endpoint(max_workers=10)))
    assert brief(decided) == ["reboot w0", "reboot w1"]
    assert any("waits for other repairs" in wait.reason for wait in decided.waits)


def test_errors_are_repaired_at_once_and_suspects_wait_for_them():
    # five hot workers: one repair at a time; the two that report errors serve nothing, so they do not wait
    broken = [worker(f"e{n}", S.ERROR, error="CUDA error", loaded_once=True) for n in range(2)]
    fleet = [worker("ill", suspect_since=NOW - 60)] + [worker(f"x{n}") for n in range(4)]
    decided = decide(see(*broken, *fleet))
    assert [each for each in brief(decided) if each.startswith("reboot")] == ["reboot e0", "reboot e1"]
    assert any("its reboot waits for other repairs" in each.reason for each in decided.waits)


def test_a_draining_worker_that_does_not_respond_is_stopped_at_once():
    assert brief(decide(see(draining("w1", seen=None, suspect_since=NOW - 20, in_flight=1)))) == ["stop w1"]


def test_an_unconfirmed_release_is_repeated():
    leaving = worker("w1", S.DESTROYING, retry_at=NOW)
    assert brief(decide(see(leaving))) == ["destroy w1"]
    assert brief(decide(see(leaving.replace(retry_at=NOW + 1)))) == []
    assert brief(decide(see(leaving.replace(operation="destroy")))) == []


def test_a_stop_that_has_no_effect_is_repeated():
    assert brief(decide(see(worker("w1", S.STOPPING, since=NOW - 120)))) == ["stop w1"]
    assert brief(decide(see(worker("w1", S.STOPPING, since=NOW - 119), listed_at=NOW - 1))) == []


def test_a_repeated_stop_gets_as_much_time_as_the_first():
    ordered = worker("w1", S.STOPPING, since=NOW - 1800, operation="stop")
    accepted = fold_operation_result(ordered, "stop", now=NOW - 1, learned=MachineStats(), ok=True).worker
    seen = see(accepted, listed_at=NOW - 1)
    assert brief(decide(seen)) == []
    due = NOW - 1 + DEFAULT_TUNING.stop_retry_seconds
    again = decide(replace(seen, now=due, listed_at=due))
    assert brief(again) == ["stop w1"]
    assert "still not stopped after 32 min" in again.operations[0].reason


def test_no_operation_is_repeated_while_it_runs_or_its_retry_pause_lasts():
    broken = worker("w1", S.ERROR, error="boom")
    assert brief(decide(see(broken.replace(operation="reboot")))) == []
    cooling = decide(see(broken.replace(retry_at=NOW + 40)))
    assert brief(cooling) == []
    assert cooling.replan_at <= NOW + 40


# rolling updates


def test_inactive_workers_are_updated_first():
    fleet = [worker("hot"), worker("cold", COLD)]
    found = offers(offer(1), revision=2)
    seen = see(*fleet, workergroups=(group(revision=2),), offers=(found,), load=steady(90))
    assert brief(decide(seen))[0] == "update cold"


def test_a_ready_worker_is_drained_for_its_update_when_enough_stay_ready():
    fleet = [worker("w1"), worker("w2", in_flight=3)]
    seen = see(*fleet, workergroups=(group(revision=2),), load=steady(90))
    assert brief(decide(seen)) == ["drain w1 to update"]


def test_an_update_never_drops_below_the_needed_capacity_but_makes_room_first():
    found = offers(offer(1), revision=2)
    seen = see(worker("w1"), workergroups=(group(revision=2),), offers=(found,), load=steady(90))
    decided = decide(seen)
    assert brief(decided) == ["recruit 1x RTX 4090 1"]
    assert "rolling update" in decided.operations[0].reason


def test_an_update_for_which_max_workers_leaves_no_room_takes_one_worker_after_the_other():
    busy = see(
        worker("w1", in_flight=2),
        worker("w2", in_flight=2),
        workergroups=(group(revision=2),),
        config=endpoint(max_workers=2),
        offers=(offers(offer(1), revision=2),),
        load=steady(190),
    )
    assert brief(decide(busy)) == ["drain w1 to update"]
    first = draining("w1", Goal.UPDATE, in_flight=1)
    assert brief(decide(replace(busy, workers=(first, worker("w2", in_flight=2))))) == []


def test_a_lone_worker_is_updated_when_nothing_is_asked_of_it():
    seen = see(worker("w1"), workergroups=(group(revision=2),), config=endpoint(max_workers=1, min_load=1))
    assert brief(decide(seen)) == ["drain w1 to update"]


def test_only_a_fifth_is_updated_at_a_time():
    fleet = [worker(f"w{n}") for n in range(10)]
    seen = see(*fleet, workergroups=(group(revision=2),), load=steady(300))
    drained = [each for each in brief(decide(seen)) if each.endswith("to update")]
    assert len(drained) == 2


def test_a_drained_worker_is_updated_in_place():
    empty = draining("w1", Goal.UPDATE)
    seen = see(empty, worker("w2", revision=2), workergroups=(group(revision=2),), load=steady(90))
    assert brief(decide(seen)) == ["update w1"]


def test_a_first_boot_of_an_outdated_revision_starts_over():
    boots = worker("w1", S.LOADING, since=NOW - 20)
    found = offers(offer(1), revision=2)
    seen = see(boots, workergroups=(group(revision=2),), offers=(found,), load=steady(90))
    assert brief(decide(seen)) == ["destroy w1", "recruit 1x RTX 4090 1"]


def test_an_update_that_keeps_failing_is_replaced_by_a_new_worker():
    stale = worker("w1", COLD, failures=3)
    found = offers(offer(1), revision=2)
    seen = see(stale, workergroups=(group(revision=2),), offers=(found,), config=endpoint(min_workers=1))
    assert brief(decide(seen)) == ["destroy w1", "recruit 1x RTX 4090 1"]


def test_a_worker_in_error_is_released_where_the_budget_has_no_room_to_run_it_again():
    """Its machine is stopped and costs nothing. The budget was lowered, or a replacement uses it up."""
    broken = worker("w1", S.ERROR, loaded_once=True, price=0.3, error="boom", market_status="exited")
    other = worker("w2", price=0.3)
    tight = decide(see(broken, other, load=steady(50), config=endpoint(dollars_per_hour_max=0.55)))
    assert brief(tight)[:1] == ["destroy w1"]
    assert "$0.24/h left of the budget" in tight.operations[0].reason
    assert brief(decide(see(broken, other, load=steady(50), config=endpoint(dollars_per_hour_max=0.6))))[
        :1
    ] == ["reboot w1"]


@pytest.mark.parametrize("status", ["running", "loading", ""])
def test_a_worker_in_error_counts_in_the_budget_while_its_machine_runs(status):
    """The marketplace bills the machine whatever its worker reports."""
    broken = worker("w1", S.ERROR, loaded_once=True, price=0.3, error="boom", market_status=status)
    roomy, tight = endpoint(dollars_per_hour_max=0.6), endpoint(dollars_per_hour_max=0.55)
    ready, cold = worker("w2", price=0.3), worker("w2", S.INACTIVE, price=0.3)
    assert brief(decide(see(broken, ready, load=steady(50), config=roomy)))[:1] == ["reboot w1"]
    assert brief(decide(see(broken, ready, load=steady(50), config=tight)))[:1] == ["destroy w1"]
    hopeless = decide(see(broken.replace(reboots=1), cold, load=steady(90), config=tight))
    assert brief(hopeless)[:1] == ["destroy w1"]
    assert "activate w2" not in brief(hopeless), "a released machine is billed until it is gone"


# listings


def test_instances_are_listed_often_while_workers_change_state():
    young = worker("w1", S.STOPPING, since=NOW - 4)
    assert brief(decide(see(young, listed_at=NOW - 3))) == ["poll"]
    assert brief(decide(see(young, listed_at=NOW - 2))) == []
    old = worker("w1", S.MODEL_LOADING, since=NOW - 100)
    assert brief(decide(see(old, listed_at=NOW - 24, load=steady(50)))) == []
    assert brief(decide(see(old, listed_at=NOW - 25, load=steady(50)))) == ["poll"]


def test_instances_are_listed_soon_when_a_worker_does_not_respond():
    """The listing shows an outbid machine as stopped, long before a reboot would be ordered."""
    ill = worker("w1", suspect_since=NOW - 1)
    assert "poll" not in brief(decide(see(ill, load=steady(90), listed_at=NOW - 2)))
    assert "poll" in brief(decide(see(ill, load=steady(90), listed_at=NOW - 3)))


def test_instances_are_listed_every_two_minutes_while_workers_run():
    just_listed = decide(see(worker("w1"), load=steady(90), listed_at=NOW - 100))
    assert (brief(just_listed), just_listed.replan_at) == ([], NOW + 20)
    assert brief(decide(see(worker("w1"), load=steady(90), listed_at=NOW - 120))) == ["poll"]


def test_a_listing_that_is_nearly_due_joins_a_plan():
    assert brief(decide(see(worker("w1"), load=steady(90), listed_at=NOW - 107))) == []
    assert brief(decide(see(worker("w1"), load=steady(90), listed_at=NOW - 108))) == ["poll"]


def test_instances_are_listed_every_quarter_of_an_hour_while_no_worker_runs():
    assert brief(decide(see(listed_at=NOW - 809))) == []
    assert brief(decide(see(listed_at=NOW - 900))) == ["poll"]
    assert brief(decide(see(listed_at=0.0))) == ["poll"]


def test_a_change_that_the_marketplace_pushed_is_looked_at_once_and_within_three_seconds():
    calm = see(worker("w1"), load=steady(90), listed_at=NOW - 10)
    assert brief(decide(calm)) == []
    assert brief(decide(replace(calm, look_asked_at=NOW - 11))) == []  # listed since
    asked = decide(replace(calm, look_asked_at=NOW))
    assert brief(asked) == ["poll"]
    assert asked.operations[0].reason == "the marketplace told of a change; last listed 10 s ago"
    just_listed = decide(replace(calm, listed_at=NOW - 1, look_asked_at=NOW))
    assert (brief(just_listed), just_listed.replan_at) == ([], NOW + 2)
    running = decide(replace(calm, look_asked_at=NOW, listing_in_progress=True))
    assert (brief(running), running.replan_at) == ([], NOW + 3)


def test_a_listing_in_progress_is_not_repeated():
    assert brief(decide(see(listed_at=0.0, listing_in_progress=True))) == []


def listings(seen: Observation) -> list[bool]:
    """For each ordered listing: whether it lists all instances of the endpoint."""
    return [each.whole for each in decide(seen).operations if isinstance(each, PollInstances)]


def test_while_workers_change_state_all_instances_are_listed_every_two_minutes_only():
    moving = worker("w1", S.LOADING, since=NOW - 12)
    seen = see(moving, listed_at=NOW - 3, listed_whole_at=NOW - 100)
    assert listings(seen) == [False]
    assert listings(replace(seen, listed_whole_at=NOW - 120)) == [True]
    assert listings(replace(seen, listed_at=0.0, listed_whole_at=0.0)) == [True]


def test_all_instances_are_listed_if_the_fleet_is_steady_or_has_an_orphan():
    calm = see(worker("w1"), load=steady(90), listed_at=NOW - 120, listed_whole_at=NOW - 100)
    assert listings(calm) == [True]
    orphan = worker("s1-9", S.DESTROYING, since=NOW - 12, workergroup_id=ORPHAN_GROUP)
    assert listings(see(orphan, listed_at=NOW - 3, listed_whole_at=NOW - 3)) == [True]


def test_while_a_listing_runs_the_next_one_has_a_time():
    """Its result may change nothing and cause no plan: the next listing must not depend on it."""
    stopping = worker("w1", S.STOPPING, since=NOW - 4)
    assert decide(see(stopping, listed_at=NOW - 4, listing_in_progress=True)).replan_at == NOW + 3


def test_the_second_of_two_workers_is_not_suspected_while_the_first_reboots():
    rebooting = worker("w1", S.REBOOTING, since=NOW - 5, operation="reboot")
    silent = worker("w2", reported_at=NOW - 500)
    assert brief(decide(see(rebooting, silent, load=steady(190)))) == []


@pytest.mark.parametrize("state", [S.STOPPING, S.DESTROYING])
def test_the_second_of_two_workers_is_not_suspected_right_after_the_first_was_stopped(state):
    leaving = worker("w1", state, since=NOW - 5, operation="stop", ran_at_release=True)
    silent = worker("w2", reported_at=NOW - 500)
    seen = see(leaving, silent, load=steady(190))
    assert mark_unresponsive(seen, DEFAULT_TUNING).workers[1].suspect_since is None
    long_ago = see(leaving.replace(since=NOW - 121), silent, load=steady(190))
    assert mark_unresponsive(long_ago, DEFAULT_TUNING).workers[1].suspect_since is not None


def hopeless(name="w1", error="the repository is gated: accept its licence", **given):
    return worker(name, S.ERROR, error=error, error_everywhere=True, loaded_once=False, **given)


def test_a_failure_that_no_other_machine_can_help_stops_recruiting_at_once():
    seen = see(hopeless(), load=steady(50))
    decided = decide(seen)
    assert brief(decided) == ["destroy w1"], "no other machine is rented"
    (wait,) = [each for each in decided.waits if each.code == "worker_failed"]
    assert "no machine can run workergroup 1 before its template, model or secrets change" in wait.reason
    assert "the repository is gated" in wait.reason
    assert wait.until == NOW + 600  # one attempt after failures_pause_seconds
    # without the word of the worker, one failed boot says nothing about the next host
    assert brief(decide(see(hopeless().replace(error_everywhere=False), load=steady(50)))) == [
        "destroy w1",
        "recruit 1x RTX 4090 1",
    ]


def failed(machine_id, ago, **given):
    return HostFailure(
        **{
            "machine_id": machine_id,
            "until": NOW - ago + 3600,
            "reason": "gated",
            "workergroup_id": 1,
            "failed_at": NOW - ago,
            "cause": "gated",
            "everywhere": True,
        }
        | given
    )


@pytest.mark.parametrize(
    ("failures", "rents"),
    [
        ([failed(1, 599)], False),
        ([failed(1, 600)], True),
        ([failed(1, 1200), failed(2, 600)], False),  # the second attempt failed as well: an hour
        ([failed(1, 599, revision=0)], True),  # the template has changed since
        ([failed(1, 599, workergroup_id=2)], True),
    ],
)
def test_such_a_workergroup_gets_one_attempt_then_one_an_hour(failures, rents):
    learned = replace(knows(), failed_hosts=tuple(failures))
    assert ("recruit 1x RTX 4090 1" in brief(decide(see(learned=learned, load=steady(50))))) is rents


def test_a_worker_that_runs_contradicts_a_failure_that_claims_to_be_everywhere():
    learned = replace(knows(), failed_hosts=(failed(1, 10),))
    serving = worker("w2", in_flight=1)
    assert "recruit 1x RTX 4090 1" in brief(decide(see(serving, learned=learned, load=steady(150))))


def test_a_wait_for_a_boot_tells_why_the_last_one_failed_until_a_worker_was_ready():
    boots = worker("w2", S.MODEL_LOADING, since=NOW - 20)
    full = failed(1, 30, everywhere=False, reason="1x RTX 4090: the disk is full: rent with a larger disk")
    older = failed(2, 90, everywhere=False, reason="older")

    def told(*workers, **given):
        learned = replace(knows(), failed_hosts=(full, older))
        return decide(see(*workers, **{"learned": learned, "load": steady(50)} | given)).waits[0].reason

    assert told(boots).endswith("; last failure: 1x RTX 4090: the disk is full: rent with a larger disk")
    assert told(boots.replace(error="its host says: no space")).endswith("failure: its host says: no space")
    assert told(offers=(offers(),)).endswith(
        "last failure: 1x RTX 4090: the disk is full: rent with a larger disk"
    )
    assert "failure" not in told(boots, workergroups=(group(revision=2),)), "the template has changed since"
    assert "failure" not in told(boots, worker("w1", COLD, loaded_once=True, perf=1)), (
        "another host can run it"
    )
