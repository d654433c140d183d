"""The controller without a host: events and results come in, effects go out."""

from types import SimpleNamespace

import pytest

from controller import config_events
from controller.controller import (
    BILLS_SECONDS,
    CONFIRM_SECONDS,
    FALLBACK_SECONDS,
    LIST_LAG_SECONDS,
    REPLAN_SECONDS,
    SUSPENDED_SECONDS,
    EndpointController,
)
from controller.drain_handshake import TICKETS_SECONDS
from controller.effects import (
    ChangeInstance,
    CreatedInstance,
    CreateInstance,
    Decision,
    Done,
    Failed,
    FoundOffers,
    ListedInstances,
    ListInstances,
    SearchOffers,
)
from controller.whatif import advice_events
from policy.planning.planner import plan
from policy.state.billing import CostLedger
from policy.state.plan import (
    Activate,
    Destroy,
    Plan,
    PollInstances,
    Reboot,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Wait,
)
from policy.state.worker import Drain, Goal
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.messages import Condition, MetricsBatch, WorkerMetrics
from stoker_wire.states import WorkerState as S
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, draining, group, offer, offers, report, steady, worker

GROUPS = (group(),)


def controller(*workers, groups=GROUPS, planned=True, **config) -> EndpointController:
    made = EndpointController(a_book(*workers, groups=groups, **config), label_prefix="stoker:llm:")
    if planned:
        made.due = ""
    return made


def planned(made, *operations, at=NOW, before=None, now=None, **plan):
    """The effects of a plan with these operations."""
    observation = made.observe((), at)
    if before is not None:
        observation = SimpleNamespace(now=at, workers=before)
    decision = Decision(plan=Plan(operations=operations, **plan))
    return made.on_plan(decision, observation, at if now is None else now)


# events


def test_a_plan_is_due_when_an_endpoint_starts():
    made = controller(planned=False)
    assert made.due == "the endpoint starts"
    made.observe((), NOW)
    assert made.due == ""


EVENTS = {
    "the config changed": lambda made: made.on_change(
        config_events.config, EndpointPatch(max_workers=3), NOW
    ),
    "a workergroup was added": lambda made: made.on_change(config_events.set_workergroup, group(2), NOW),
    "a workergroup was removed": lambda made: made.on_change(config_events.remove_workergroup, group(1), NOW),
    "a workergroup changed": lambda made: made.on_change(config_events.update_workers, group(1), NOW),
    "an update was cancelled": lambda made: made.on_change(config_events.cancel_update, group(1), NOW),
    "advice was asked for": lambda made: made.on_change(
        advice_events.advise, Advise(config=EndpointPatch(max_workers=2)), NOW
    ),
    "the endpoint is deleted": lambda made: made.on_change(config_events.delete, "a user deleted it", NOW),
    "urgent": lambda made: made.on_metrics([batch(urgent="urgent")], NOW),
}


def batch(*workers, sequence=1, **given):
    return MetricsBatch(engine_id="e", sequence=sequence, sent_at=NOW, workers=workers, **given)


@pytest.mark.parametrize(("reason", "event"), EVENTS.items(), ids=EVENTS)
def test_an_event_makes_a_plan_due_and_counts_the_cost_up_to_it(reason, event):
    made = controller(worker("w", price=3.6))
    made.state.count_dollars(NOW - 1000)
    event(made)
    assert made.due == reason
    assert made.state.record.ledger.dollars == pytest.approx(1.0)  # 1000 s at $3.60/h
    made.on_change(config_events.delete, "a user deleted it", NOW)
    assert made.due == reason, "the first reason counts"


def test_a_change_that_needs_no_plan_makes_none_due():
    made = controller()
    made.on_change(config_events.unblock_hosts, (), NOW)
    made.on_change(config_events.rotate_key, 60.0, NOW)
    assert made.due == ""


def test_a_timer_that_fires_late_is_no_evidence_against_workers_that_did_not_report():
    for late, listening_since in ((1.0, 0.0), (SUSPENDED_SECONDS + 1, NOW + SUSPENDED_SECONDS + 1)):
        made = controller(worker("w"))
        made.state.record.replan_at = NOW
        made.on_timer(NOW + late)
        assert made.observe((), NOW + late).listening_since == listening_since


def test_the_timer_makes_a_plan_due_once():
    made = controller()
    made.state.record.replan_at = NOW
    made.on_timer(NOW)
    assert (made.due, made.state.record.replan_at) == ("the time has come", None)


def test_a_drain_that_every_engine_has_seen_makes_a_plan_due():
    made = controller(draining("w", seen=None, instance_id=5, reported_at=NOW - 1))
    seen = WorkerMetrics(
        launch_id="w",
        instance_id=5,
        condition=Condition.READY,
        perf=100,
        reported_at=NOW - 1,
        drain_seen=True,
    )
    made.on_metrics([batch(seen)], NOW)
    assert made.due == "every engine has seen the drain"


def test_a_delete_is_logged_once_and_ends_advice():
    made = controller()
    made.on_change(advice_events.advise, Advise(config=EndpointPatch(max_workers=2)), NOW)
    assert made.advice is not None
    made.on_change(config_events.delete, "a user deleted it", NOW)
    made.on_change(config_events.delete, "again", NOW)
    assert made.advice is None
    assert reasons(made.state)[-1] == "a user deleted it"


# plans


def test_an_observation_names_what_is_in_flight_and_the_level_of_the_load():
    made = controller(groups=(group(1), group(2)))
    made.state.record.load = steady(50.0)
    planned(made, Search(reason="r", workergroup_id=2), PollInstances(reason="r"))
    observed = made.observe(("a", "b"), NOW + 1)
    assert (observed.searching, observed.listing_in_progress, observed.launch_ids) == ((2,), True, ("a", "b"))
    assert made.state.record.load_at_plan == 50.0
    made.on_result(made.in_flight["list"], ListedInstances(), NOW + 2)
    made.on_result(made.in_flight["search:2"], FoundOffers(), NOW + 2)
    observed = made.observe((), NOW + 3)
    assert (observed.searching, observed.listing_in_progress) == ((), False)


def test_a_plan_is_kept_and_its_faults_are_logged():
    made = controller()
    made.on_change(config_events.config, EndpointPatch(max_workers=3), NOW)
    wait = Wait(code="no_offers", subject="1", reason="no offers")
    decision = Decision(
        plan=Plan(replan_at=NOW + 7, waits=(wait,)), refused=("too many workers",), fault="f" * 400
    )
    assert made.on_plan(decision, made.observe((), NOW), NOW + 1) == ()
    assert made.state.record.replan_at == NOW + 7
    _, fault, refused, waits = made.state.log.lines
    assert (fault.reason, fault.subject) == ("planner: " + "f" * 291, "the config changed")
    assert (refused.kind, refused.reason, refused.subject) == ("fail", "refused: too many workers", "plan")
    assert (waits.kind, waits.reason, waits.at, waits.level) == ("wait", "no offers", NOW, 1)
    made.on_plan(Decision(plan=Plan(waits=(wait,))), made.observe((), NOW + 9), NOW + 9)
    assert len(made.state.log.lines) == 4, "a wait is logged when it begins"
    assert made.state.record.replan_at == NOW + 9 + FALLBACK_SECONDS


def test_a_plan_is_due_when_a_silent_engine_times_out():
    made = controller(draining("w", seen=None, began=NOW - 1, instance_id=5))
    made.on_metrics([batch()], NOW)
    planned(made, replan_at=NOW + 500)
    assert made.state.record.replan_at == NOW + 30, "after 30 s without a batch the engine counts as dead"


def test_tickets_of_a_dead_engine_keep_a_worker_hot_until_they_expire_and_no_longer():
    made = controller(worker("w", perf=10.0), inactivity_timeout=12.0)
    told = {"launch_id": "w", "instance_id": made.state.record.workers["w"].instance_id, "perf": 10.0}
    for engine_id, tickets, at in (("dead", 2, NOW), ("alive", 0, NOW + 1), ("alive", 0, NOW + 6)):
        report = WorkerMetrics(**told, condition=Condition.READY, tickets_open=tickets, reported_at=at)
        sent = {"sequence": int(at), "sent_at": at, "window_s": 5.0, "last_request_at": NOW}
        made.on_metrics((MetricsBatch(engine_id=engine_id, **sent, workers=(report,)),), at)
    idle = made.observe((), NOW + 20)
    assert [each.tickets_open for each in idle.workers] == [2]
    made.on_plan(Decision(plan=Plan()), idle, NOW + 20)
    assert made.state.record.replan_at == NOW + TICKETS_SECONDS
    free = made.observe((), NOW + TICKETS_SECONDS + 0.1)
    assert [each.tickets_open for each in free.workers] == [0]
    assert any(isinstance(each, StartDrain) for each in plan(free).operations)


def test_a_failed_planner_is_asked_again_soon():
    made = controller()
    made.on_change(config_events.config, EndpointPatch(max_workers=3), NOW)
    made.on_plan_failed("ZeroDivisionError", made.observe((), NOW), NOW + 1)
    assert made.state.record.replan_at == NOW + 1 + REPLAN_SECONDS
    assert (made.state.log.lines[-1].reason, made.state.log.lines[-1].at) == (
        "planner: ZeroDivisionError",
        NOW,
    )


# operations


def recruit(name="n", number=4, **given):
    return Recruit(
        reason="more load",
        launch_id=name,
        workergroup_id=1,
        offer=offer(number),
        numbers={"load": 2.0},
        **given,
    )


def test_a_recruit_is_recorded_before_it_is_carried_out():
    made = controller()
    (effect,) = planned(made, recruit())
    assert isinstance(effect, CreateInstance)
    assert (effect.key, effect.workergroup.id, effect.offer.id, effect.resumed) == ("n", 1, 4, False)
    launched = made.state.record.workers["n"]
    assert (launched.state, launched.operation, launched.since) == (S.PENDING, "create", NOW)
    assert made.state.record.pending_offers == {"n": offer(4)}
    assert made.in_flight == {"n": effect}
    (line,) = made.state.log.lines
    assert (line.kind, line.reason, line.subject, line.numbers, line.workergroup_id) == (
        "recruit",
        "more load",
        "n",
        {"load": 2.0},
        1,
    )


@pytest.mark.parametrize("groups", [(), (group(),)])
def test_a_recruit_for_a_removed_workergroup_or_a_known_launch_is_dropped(groups):
    made = controller(*([worker("n")] if groups else []), groups=groups)
    assert planned(made, recruit()) == ()
    assert made.state.record.pending_offers == {}
    assert reasons(made.state) == []


def test_an_operation_changes_the_record_and_asks_the_host():
    made = controller(worker("w", S.INACTIVE))
    asked = Activate(reason="more load", launch_id="w", numbers={"load": 2.0})
    (effect,) = planned(made, asked)
    assert isinstance(effect, ChangeInstance)
    assert (effect.worker.operation, effect.worker.state) == ("start", S.STARTING)
    assert (effect.workergroup, effect.resumed, effect.may_get_requests) == (group(), False, False)
    assert made.state.record.workers["w"] == effect.worker
    (line,) = made.state.log.lines
    assert (line.kind, line.reason, line.subject, line.numbers, line.workergroup_id) == (
        "activate",
        "more load",
        "w",
        {"load": 2.0},
        1,
    )
    assert planned(made, asked) == (), "the start is under way"


def test_a_drain_needs_no_host():
    made = controller(worker("w"))
    drain = Drain(since=NOW, deadline=NOW + 60, goal=Goal.STOP, reason="calm")
    assert planned(made, StartDrain(reason="calm", launch_id="w", drain=drain)) == ()
    assert made.state.record.workers["w"].drain == drain


def test_an_operation_on_an_unknown_worker_is_dropped():
    made = controller()
    assert planned(made, Activate(reason="r", launch_id="w")) == ()
    assert reasons(made.state) == []


def test_an_operation_that_the_state_does_not_allow_is_logged_and_dropped():
    made = controller(worker("w", S.STOPPING))
    assert planned(made, Activate(reason="r", launch_id="w")) == ()
    assert made.state.record.workers["w"].operation == ""
    _, line = made.state.log.lines
    assert line.reason.startswith("activate: activate of worker w")
    assert (line.kind, line.subject, line.workergroup_id, line.level) == ("fail", "w", 1, 0)


def test_only_a_destroy_is_possible_without_an_instance():
    made = controller(worker("w", S.CREATING, instance_id=None))
    assert planned(made, Stop(reason="r", launch_id="w")) == ()
    assert reasons(made.state)[-1] == "stop: it has no instance yet"
    assert made.state.log.lines[-1].level == 2
    (effect,) = planned(made, Destroy(reason="r", launch_id="w"))
    assert effect.worker.operation == "destroy"


@pytest.mark.parametrize(
    ("state", "reported", "operation", "may"),
    [
        (S.MODEL_LOADING, None, Destroy, True),
        (S.MODEL_LOADING, None, Stop, True),
        (S.LOADING, None, Destroy, True),  # its first report reaches the engines first
        (S.STARTING, None, Stop, True),
        (S.STARTING, NOW - 6, Stop, True),
        (S.READY, NOW - 1, Destroy, False),
        (S.READY, NOW - 1, Reboot, False),
    ],
)
def test_a_booting_worker_may_get_requests_until_it_is_released(state, reported, operation, may):
    since = NOW - 5
    made = controller(worker("w", state, since=since, reported_at=reported))
    (effect,) = planned(made, operation(reason="r", launch_id="w"))
    assert effect.may_get_requests is may


def test_the_next_run_waits_for_requests_that_a_booting_worker_got_before_its_release():
    made = controller(worker("w", S.LOADING, since=NOW - 5, instance_id=77))
    planned(made, Destroy(reason="r", launch_id="w"))
    made.on_metrics([batch(report(reported_at=NOW + 1, load=20.0, in_flight=2))], NOW + 1)
    resumed = controller(made.state.record.workers["w"])
    (effect,) = resumed.resume(NOW + 20)
    assert (effect.resumed, effect.may_get_requests) == (True, True)
    assert resumed.holds_requests("w")


def test_a_worker_that_became_ready_while_the_plan_was_made_is_not_stopped():
    for operation in (Stop, Destroy):
        made = controller(worker("w"))
        booting = worker("w", S.MODEL_LOADING)
        assert planned(made, operation(reason="r", launch_id="w"), before=(booting,)) == ()
        assert made.due == "a worker was ready before a plan knew it"
        assert made.state.record.workers["w"].operation == ""
        (line,) = made.state.log.lines
        assert (line.kind, line.level, line.subject, line.workergroup_id) == ("wait", 1, "w", 1)
        assert "it takes requests now" in line.reason


def test_a_stop_of_a_worker_whose_state_did_not_change_is_not_stale():
    made = controller(draining("ready"), worker("booting", S.MODEL_LOADING), worker("w"))
    operations = [Destroy(reason="r", launch_id=name) for name in ("ready", "booting", "unknown")]
    operations.append(Reboot(reason="r", launch_id="w"))
    before = (draining("ready"), worker("booting", S.MODEL_LOADING), worker("w", S.MODEL_LOADING))
    effects = planned(made, *operations, before=before)
    assert [effect.key for effect in effects] == ["ready", "booting", "w"]
    assert made.due == ""


def test_a_search_is_started_once_and_for_known_workergroups_only():
    made = controller()
    (effect,) = planned(made, Search(reason="r", workergroup_id=1), Search(reason="r", workergroup_id=5))
    assert effect == SearchOffers(workergroup=group())
    assert planned(made, Search(reason="r", workergroup_id=1)) == ()


@pytest.mark.parametrize("whole", [True, False])
def test_a_list_names_the_known_launches_and_instances(whole):
    made = controller(
        worker("a", instance_id=1),
        worker("b", S.DESTROYING, instance_id=2, operation="destroy"),
        worker("c", S.CREATING, instance_id=None, operation="create"),
    )
    made.state.record.ledger = CostLedger(since=NOW - 9000, settled_at=NOW - BILLS_SECONDS + 1)
    (effect,) = planned(made, PollInstances(reason="to look", whole=whole))
    assert effect == ListInstances(
        reason="to look", asked_at=NOW, launch_ids=() if whole else ("a", "b", "c"), known_ids=(1,)
    )


def test_a_list_reads_the_bills_once_an_hour_and_is_whole_then():
    made = controller(worker("a", instance_id=1, launched_at=NOW - BILLS_SECONDS))
    made.state.count_dollars(NOW - BILLS_SECONDS)
    (effect,) = planned(made, PollInstances(reason="to look", whole=False))
    assert (effect.launch_ids, effect.bills_since) == ((), NOW - BILLS_SECONDS)


# results


def test_offers_are_kept_with_the_revision_that_they_were_found_for():
    made = controller(groups=(group(1, revision=4),))
    (effect,) = planned(made, Search(reason="r", workergroup_id=1))
    made.on_result(effect, FoundOffers(offers=(offer(1), offer(2))), NOW + 3)
    found = made.state.offers[1]
    assert ([each.id for each in found.offers], found.searched_at, found.revision) == ([1, 2], NOW + 3, 4)
    assert (made.due, made.in_flight, found.error) == ("a search answered", {}, "")


def test_a_failed_search_is_logged_and_kept_as_such():
    made = controller()
    (effect,) = planned(made, Search(reason="r", workergroup_id=1))
    made.on_result(effect, Failed(kind="Refused", text="no key"), NOW)
    assert (made.state.offers[1].error, made.state.offers[1].offers) == ("Refused: no key", ())
    (line,) = made.state.log.lines
    assert (line.reason, line.subject, line.workergroup_id) == ("search: Refused: no key", "1", 1)
    made.on_result(effect, Failed(kind="", text="no key"), NOW)
    assert made.state.offers[1].error == "no key"


def test_the_end_of_a_create_makes_a_plan_due():
    made = controller()
    (effect,) = planned(made, recruit())
    made.on_result(effect, CreatedInstance(instance_id=77), NOW)
    assert (made.due, made.in_flight) == ("the create of n ended", {})
    assert made.state.record.workers["n"].instance_id == 77


def test_a_failed_create_removes_the_worker():
    made = controller()
    (effect,) = planned(made, recruit())
    made.on_result(effect, Failed(kind="OfferGone", text="gone"), NOW)
    assert (made.due, made.state.record.workers) == ("the create of n ended", {})


def test_the_end_of_an_operation_makes_a_plan_due():
    made = controller(worker("w", S.INACTIVE, revision=1), groups=(group(1, revision=4),))
    (effect,) = planned(made, Activate(reason="r", launch_id="w"))
    made.on_result(effect, Failed(kind="", text="busy"), NOW)
    assert made.due == "the start of w ended"
    assert made.state.record.workers["w"].state is S.INACTIVE


def test_a_list_of_the_known_instances_is_no_proof_of_emptiness():
    made = controller()
    effect = ListInstances(reason="r", asked_at=NOW, launch_ids=("a",))
    made.on_result(effect, ListedInstances(), NOW + 1)
    assert (made.state.record.listed_at, made.state.record.listed_whole_at) == (NOW, 0.0)
    made.on_result(ListInstances(reason="r", asked_at=NOW), ListedInstances(), NOW + 1)
    assert made.state.record.listed_whole_at == NOW


def test_a_failed_list_is_logged():
    made = controller()
    made.on_result(ListInstances(reason="r", asked_at=NOW), Failed(kind="", text="503"), NOW + 1)
    assert (reasons(made.state), made.state.record.listed_at, made.due) == (["list: 503"], 0.0, "")


def test_a_new_run_repeats_what_was_in_flight():
    made = controller(
        worker("calm"),
        worker("starting", S.STARTING, operation="start"),
        worker("new", S.PENDING, operation="create", instance_id=None),
        worker("lost", S.PENDING, operation="create", instance_id=None),
        worker("homeless", S.PENDING, operation="create", instance_id=None, workergroup_id=5),
    )
    made.state.record.pending_offers = {"new": offer(4), "homeless": offer(5)}
    starting, new = made.resume(NOW)
    assert isinstance(starting, ChangeInstance)
    assert isinstance(new, CreateInstance)
    assert (starting.key, starting.resumed, starting.workergroup) == ("starting", True, group())
    assert (new.key, new.resumed, new.offer.id) == ("new", True, 4)
    operations = {name: each.operation for name, each in made.state.record.workers.items()}
    lost = {"lost": "", "homeless": ""}
    assert operations == {"calm": "", "starting": "start", "new": "create"} | lost
    without_offer, without_group = reasons(made.state)
    assert "its offer was not carried over" in without_offer
    assert "its workergroup was removed" in without_group


@pytest.mark.parametrize(
    ("given", "holds"), [({"in_flight": 1}, True), ({"tickets_open": 1}, True), ({}, False)]
)
def test_a_worker_holds_requests_by_its_newest_report(given, holds):
    made = controller(worker("w", **given))
    assert made.holds_requests("w") is holds
    assert not made.holds_requests("unknown")


# the end


def empty_list(made, asked_at):
    made.on_result(ListInstances(reason="r", asked_at=asked_at), ListedInstances(), asked_at + 1)


def test_an_endpoint_is_gone_once_a_late_list_shows_nothing():
    made = controller(worker("w", S.DESTROYING, instance_id=5, operation="destroy"))
    made.on_change(config_events.delete, "a user deleted it", NOW)
    planned(made)
    assert made.state.record.emptied_at is None
    made.on_result(
        ChangeInstance(worker=made.state.record.workers["w"], workergroup=None), Done(confirmed=True), NOW
    )
    assert planned(made, at=NOW + 1) == ()
    assert (made.state.record.emptied_at, made.state.record.replan_at) == (
        NOW + 1,
        NOW + 1 + LIST_LAG_SECONDS,
    )
    empty_list(made, NOW + 5.9)
    assert not made.is_gone, "the list may lack an instance that is younger than 5 s"
    (effect,) = planned(made, at=NOW + 6)
    assert (effect.launch_ids, effect.reason) == ((), "the endpoint is deleted: nothing may be left")
    assert made.state.record.replan_at == NOW + 6 + CONFIRM_SECONDS
    assert not made.is_gone
    made.on_result(effect, ListedInstances(), NOW + 7)
    assert made.is_gone


def test_a_live_endpoint_without_workers_is_not_gone():
    made = controller()
    empty_list(made, NOW)
    planned(made)
    assert made.state.record.emptied_at is None
    assert not made.is_gone


def test_an_instance_on_the_list_starts_the_wait_again():
    made = controller()
    made.on_change(config_events.delete, "a user deleted it", NOW)
    planned(made)
    assert made.state.record.emptied_at == NOW
    made.state.record.workers["w"] = worker("w", S.DESTROYING)
    planned(made, at=NOW + 9)
    assert made.state.record.emptied_at is None


def test_a_create_in_flight_is_waited_for():
    made = controller()
    made.on_change(config_events.delete, "a user deleted it", NOW)
    gone = worker("n", S.PENDING, operation="create", instance_id=None)
    made.in_flight["n"] = CreateInstance(worker=gone, workergroup=group(), offer=offer(4))
    planned(made)
    assert made.state.record.emptied_at is None
    made.in_flight = {"search:1": SearchOffers(workergroup=group())}
    planned(made)
    assert made.state.record.emptied_at == NOW, "a search rents nothing"
    empty_list(made, NOW + 60)
    assert not made.is_gone, "a search is in flight"
    made.in_flight.clear()
    assert made.is_gone


def test_the_offers_of_removed_workergroups_are_not_observed():
    made = controller(groups=(group(1),))
    made.state.offers = {1: offers(group=1), 2: offers(group=2)}
    assert [each.workergroup_id for each in made.observe((), NOW).offers] == [1]
