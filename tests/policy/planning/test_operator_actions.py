"""What an operator asks of one worker: it is carried out, it blames no host, and no plan contradicts it."""

import pytest

from policy.state.apply_operation import apply_operation
from policy.state.observation import Memory
from policy.state.operator_actions import ask, refusal
from policy.state.worker import Goal
from stoker_wire.control import WorkerAction as A
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState as S
from tests.policy.builders import (
    BOOTING,
    COLD,
    NOW,
    after,
    brief,
    decide,
    draining,
    endpoint,
    group,
    offers,
    see,
    steady,
    worker,
)

BUSY = steady(150)


@pytest.mark.parametrize(
    ("action", "goal"), [(A.DRAIN, Goal.STOP), (A.REBOOT, Goal.REBOOT), (A.DESTROY, Goal.DESTROY)]
)
def test_a_ready_worker_is_drained_first(action, goal):
    seen = see(worker("w1", asked=action, in_flight=2))
    (operation,) = decide(seen).operations
    assert (operation.op, operation.drain.goal, operation.drain.until_idle) == ("drain", goal, False)
    assert operation.reason == f"an operator asked to {action} it"


@pytest.mark.parametrize(
    ("action", "goal", "operation"),
    [
        (A.DRAIN, Goal.STOP, "stop"),
        (A.REBOOT, Goal.REBOOT, "reboot"),
        (A.DESTROY, Goal.DESTROY, "destroy"),
    ],
)
def test_once_it_is_empty_the_action_follows(action, goal, operation):
    empty = draining("w1", goal, asked=action)
    assert brief(decide(see(empty))) == [f"{operation} w1"]
    busy = empty.replace(in_flight=1)
    assert brief(decide(see(busy))) == []


@pytest.mark.parametrize(
    ("state", "action", "operation"),
    [
        (BOOTING, A.DRAIN, "stop"),
        (BOOTING, A.DESTROY, "destroy"),
        (COLD, A.DESTROY, "destroy"),
        (S.ERROR, A.REBOOT, "reboot"),
        (S.ERROR, A.DRAIN, "stop"),
        (S.ERROR, A.DESTROY, "destroy"),
    ],
)
def test_a_worker_without_requests_needs_no_drain_and_no_host_is_blamed(state, action, operation):
    decided = decide(see(worker("w1", state, asked=action, error="boom" if state is S.ERROR else "")))
    assert brief(decided) == [f"{operation} w1"]
    assert decided.failed_hosts == ()


def test_a_drained_worker_is_not_started_again_by_load():
    held = worker("w1", COLD, asked=A.DRAIN)
    # 150 load/s are missing: two new machines of 100 load/s each, although a cold worker exists
    assert brief(decide(see(held, load=BUSY))) == ["recruit 1x RTX 4090 1", "recruit 1x RTX 4090 2"]
    resumed = ask(held, A.RESUME)
    assert brief(decide(see(resumed, load=BUSY)))[0] == "activate w1"


def test_a_drain_that_was_asked_for_is_not_cancelled_by_load():
    held = draining("w1", asked=A.DRAIN, in_flight=1)
    assert "cancel_drain w1" not in brief(decide(see(held, load=BUSY)))
    assert "cancel_drain w1" in brief(decide(see(held.replace(asked=None), load=BUSY)))


def test_a_drained_worker_stays_drained_on_a_suspended_endpoint():
    config = endpoint(endpoint_state=EndpointState.SUSPENDED)
    held = draining("w1", asked=A.DRAIN, in_flight=1)
    assert brief(decide(see(held, config=config))) == []
    assert brief(decide(see(held.replace(asked=None), config=config))) == ["cancel_drain w1"]


def test_a_drained_worker_is_neither_released_as_surplus_nor_updated():
    held = worker("w1", COLD, asked=A.DRAIN, since=NOW - 90_000)
    assert brief(decide(see(held, memory=Memory()))) == []
    assert brief(decide(see(held.replace(asked=None), memory=Memory()))) == ["destroy w1"]
    assert brief(decide(see(held, workergroups=(group(revision=2),), offers=(offers(),)))) == []


def test_a_drained_worker_counts_for_max_workers_and_the_wait_says_so():
    held = worker("w1", COLD, asked=A.DRAIN)
    decided = decide(see(held, load=BUSY, config=endpoint(max_workers=1)))
    assert brief(decided) == []
    said = "max_workers 1 is reached, 1 of them taken out of service by an operator"
    assert any(said in wait.reason for wait in decided.waits)


def test_a_drained_worker_is_released_with_its_endpoint():
    held = worker("w1", COLD, asked=A.DRAIN)
    assert brief(decide(see(held, deleting=True))) == ["destroy w1"]


def test_an_operators_reboot_does_not_count_as_a_repair():
    asked = draining("w1", Goal.REBOOT, asked=A.REBOOT, reboots=1)
    (reboot,) = decide(see(asked)).operations
    rebooting = apply_operation(asked, reboot, NOW)
    assert (rebooting.state, rebooting.reboots, rebooting.asked) == (S.REBOOTING, 1, None)


def test_a_worker_that_will_be_rebooted_counts_as_booting():
    asked = draining("w1", Goal.REBOOT, asked=A.REBOOT, in_flight=1)
    assert brief(decide(see(asked, load=steady(50)))) == []


def test_carrying_an_action_out_leaves_nothing_to_do():
    seen = see(worker("w1", asked=A.DESTROY), worker("w2", COLD, asked=A.DRAIN), worker("w3"))
    assert brief(decide(after(seen, decide(seen)))) == []


@pytest.mark.parametrize("state", [state for state in S if state not in {S.READY, S.ERROR, S.REBOOTING}])
def test_only_a_ready_or_failed_worker_can_be_rebooted(state):
    assert refusal(worker("w1", state), A.REBOOT)


@pytest.mark.parametrize("action", [A.DRAIN, A.REBOOT, A.RESUME])
def test_a_worker_that_is_being_released_takes_no_other_action(action):
    assert "released already" in refusal(worker("w1", S.DESTROYING), action)


def test_an_action_that_is_under_way_is_not_begun_again():
    rebooting, leaving = worker("w1", S.REBOOTING), worker("w2", S.DESTROYING)
    assert ask(rebooting, A.REBOOT) is rebooting
    assert ask(leaving, A.DESTROY) is leaving
    assert not refusal(rebooting, A.REBOOT)
    assert not refusal(leaving, A.DESTROY)


def test_resuming_cancels_a_release_that_has_not_begun():
    leaves = draining("w1", Goal.DESTROY, asked=A.DESTROY, in_flight=1)
    back = ask(leaves, A.RESUME)
    assert (back.asked, back.drain) == (None, None)
    assert ask(back, A.RESUME) is back


def test_a_drained_worker_beyond_max_workers_is_released_in_one_plan():
    held = worker("w1", asked=A.DRAIN)
    assert brief(decide(see(held, config=endpoint(max_workers=0)))) == ["drain w1 to destroy"]


@pytest.mark.parametrize("budget", [0.51, 0.6])
def test_a_drain_of_a_broken_worker_whose_machine_has_stopped_fits_an_exhausted_budget(budget):
    broken = worker(
        "w1", S.ERROR, price=2.0, loaded_once=True, error="boom", market_status="stopped", asked=A.DRAIN
    )
    seen = see(broken, worker("w2", price=0.5), config=endpoint(dollars_per_hour_max=budget), load=steady(90))
    assert brief(decide(seen)) == ["stop w1"]


def test_a_reboot_that_the_budget_has_no_room_for_releases_the_broken_worker():
    broken = worker("w1", S.ERROR, loaded_once=True, error="boom", market_status="stopped", asked=A.REBOOT)
    config = endpoint(dollars_per_hour_max=0.5)
    decided = decide(see(broken, worker("w2"), config=config, load=steady(90)))
    assert brief(decided) == ["destroy w1"]
    assert "too little for a reboot" in decided.operations[0].reason
