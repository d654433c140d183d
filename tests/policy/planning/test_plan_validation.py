from dataclasses import replace

from policy.planning.plan_validation import drop_faulty
from policy.state.plan import (
    Activate,
    Destroy,
    Plan,
    PollInstances,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Update,
)
from policy.state.worker import Drain, Goal, HostFailure
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    COLD,
    IDS,
    NOW,
    draining,
    endpoint,
    find_faults,
    group,
    knows,
    offer,
    see,
    steady,
    worker,
)

WHY = "because the test says so"


def faults(seen, *operations):
    return find_faults(seen, Plan(operations=operations))


def recruit(number, launch_id=IDS[0], **more):
    return Recruit(launch_id=launch_id, workergroup_id=1, offer=offer(number, **more), reason=WHY)


def drain(name, goal=Goal.STOP):
    until = Drain(since=NOW, deadline=NOW + 60, goal=goal, reason=WHY)
    return StartDrain(launch_id=name, drain=until, reason=WHY)


def test_a_plan_beyond_max_workers_is_refused():
    seen = see(worker("w1"), config=endpoint(max_workers=2))
    assert faults(seen, recruit(1)) == ()
    (fault,) = faults(seen, recruit(1), recruit(2, IDS[1]))
    assert fault == f"recruit {IDS[1]}: 2 workers exist and max_workers is 2"


def test_a_plan_beyond_the_budget_is_refused():
    seen = see(worker("w1"), worker("cold", COLD), config=endpoint(dollars_per_hour_max=0.5))
    (fault,) = faults(seen, Activate(launch_id="cold", reason=WHY))
    assert fault == "activate cold: it brings the endpoint to $0.60/h and the budget is $0.50/h"


def test_a_stop_of_a_worker_that_takes_requests_is_refused():
    assert "was not drained" in faults(see(worker("w1")), Stop(launch_id="w1", reason=WHY))[0]
    assert "was not drained" in faults(see(worker("w1")), Destroy(launch_id="w1", reason=WHY))[0]
    busy = draining("w1", in_flight=1)
    assert "neither finished" in faults(see(busy), Update(launch_id="w1", revision=2, reason=WHY))[0]
    assert faults(see(draining("w1")), Stop(launch_id="w1", reason=WHY)) == ()
    assert faults(see(draining("w1", in_flight=1, deadline=NOW)), Stop(launch_id="w1", reason=WHY)) == ()
    assert faults(see(worker("w1", suspect_since=NOW - 60)), Destroy(launch_id="w1", reason=WHY)) == ()


def test_two_operations_for_one_worker_are_refused():
    (fault,) = faults(see(worker("w1")), drain("w1"), drain("w1"))
    assert fault == "drain w1: it is the second operation on one worker"


def test_an_operation_without_a_reason_is_refused():
    assert faults(see(), PollInstances(reason=" ")) == ("poll: it gives no reason",)


def test_an_operation_on_an_unknown_a_busy_or_a_pausing_worker_is_refused():
    assert "no such worker" in faults(see(), Activate(launch_id="w1", reason=WHY))[0]
    busy = worker("w1", COLD, operation="update")
    assert "update is still in progress" in faults(see(busy), Activate(launch_id="w1", reason=WHY))[0]
    cooling = worker("w1", COLD, retry_at=NOW + 5)
    assert "not be retried for 5 s" in faults(see(cooling), Activate(launch_id="w1", reason=WHY))[0]


def test_an_impossible_operation_is_refused():
    assert (
        "which is IDLE; expected one of: CREATED, STOPPED"
        in faults(see(worker("w1")), Activate(launch_id="w1", reason=WHY))[0]
    )


def test_a_recruit_of_an_unknown_offer_or_launch_is_refused():
    assert "not among those found" in faults(see(), recruit(999))[0]
    assert "not an unused one" in faults(see(), recruit(1, "old"))[0]
    assert "rented twice" in faults(see(), recruit(1), recruit(1, IDS[1]))[0]
    assert "no workergroup 1" in faults(see(workergroups=()), recruit(1))[0]
    assert "no workergroup 9" in faults(see(), Search(workergroup_id=9, reason=WHY))[0]


def test_a_recruit_on_a_host_that_failed_is_refused():
    blamed = HostFailure(machine_id=1001, until=NOW + 1, reason="x")
    seen = see(learned=replace(knows(), failed_hosts=(blamed,)))
    assert "machine 1001 failed recently" in faults(seen, recruit(1))[0]


def test_a_removal_while_metrics_are_missing_is_refused():
    silent = see(worker("w1"), worker("cold", COLD), load=steady(0, until=NOW - 1000))
    assert "missing data is not zero load" in faults(silent, drain("w1"))[0]
    assert "missing data is not zero load" in faults(silent, Destroy(launch_id="cold", reason=WHY))[0]
    crowded = replace(silent, config=endpoint(max_workers=1))
    assert faults(crowded, Destroy(launch_id="cold", reason=WHY)) == ()
    assert faults(replace(silent, config=endpoint(endpoint_state="stopped")), drain("w1")) == ()


def test_a_worker_whose_update_fails_is_removed_although_metrics_are_missing():
    often = DEFAULT_TUNING.update_attempts_max
    for revision, failures, refused in ((1, often, False), (1, often - 1, True), (2, often, True)):
        failing = worker("w1", revision=revision, failures=failures)
        silent = see(failing, load=steady(0, until=NOW - 1000), workergroups=(group(revision=2),))
        assert bool(faults(silent, drain("w1"))) is refused, (revision, failures)


def test_capacity_is_not_added_to_an_endpoint_that_is_not_active():
    for seen in (see(worker("c", COLD), config=endpoint(endpoint_state="suspended")), see(deleting=True)):
        assert "not scaled now" in faults(seen, recruit(1))[0]


def test_a_plan_keeps_its_valid_operations():
    seen = see(worker("w1", S.INACTIVE), config=endpoint(max_workers=2))
    planned = Plan(operations=(recruit(1), recruit(2, IDS[1]), Activate(launch_id="w1", reason=WHY)))
    kept, refused = drop_faulty(seen, planned)
    assert [each.op for each in kept.operations] == ["recruit", "activate"]
    assert len(refused) == 1
