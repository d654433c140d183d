"""The endpoint controller: events with their time come in, effects go out, and every change leaves a reason."""

from dataclasses import replace

import pytest

from controller.controller import (
    BILLS_SECONDS,
    CONFIRM_SECONDS,
    FALLBACK_SECONDS,
    LIST_LAG_SECONDS,
    REPLAN_SECONDS,
    EndpointController,
)
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
from controller.state import KEEP_LINE_SECONDS
from policy.planning.planner import plan
from policy.state.billing import CostLedger
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Plan,
    PollInstances,
    Reboot,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Targets,
)
from policy.state.worker import Drain, Goal, HostFailure, MachineStats, Worker
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.market import Instance
from stoker_wire.messages import MetricsBatch
from stoker_wire.states import WorkerState as S
from tests.controller.book import a_book, reasons
from tests.policy.builders import COLD, NOW, group, offer, worker

PREFIX = "stoker:llm:"
IDS = tuple(f"{number:012x}" for number in range(64))


def a_controller(*workers: Worker, **config: object) -> EndpointController:
    """A controller of an endpoint with one workergroup; the plan of its start is made."""
    controller = EndpointController(a_book(*workers, groups=(group(),), **config), label_prefix=PREFIX)
    controller.due = ""
    return controller


def ordered(controller: EndpointController, *operations, targets: Targets | None = None, at: float = NOW):
    """The effects of a plan with these operations."""
    made = Plan(operations=operations, targets=targets or Targets())
    return controller.on_plan(Decision(plan=made), controller.observe(IDS, at), at)


def known(controller: EndpointController, name: str = "w1") -> Worker | None:
    return controller.state.record.workers.get(name)


# events that engines and people send


def test_a_plan_is_due_at_the_start():
    controller = EndpointController(a_book(), label_prefix=PREFIX)
    assert controller.due == "the endpoint starts"


def test_metrics_with_a_changed_load_make_a_plan_due():
    controller = a_controller(worker("w1"))
    batch = MetricsBatch(engine_id="e", sequence=1, sent_at=NOW, window_s=10.0, arrived_load=900.0)
    controller.on_metrics([batch], NOW)
    assert controller.due == "load moved from 0 to 90/s"
    assert controller.state.record.load.known_until == NOW


def test_the_first_reason_for_a_plan_is_kept():
    controller = a_controller()
    controller.on_config(EndpointPatch(max_workers=3), NOW)
    controller.on_timer()
    assert controller.due == "the config changed"


def test_a_config_patch_without_a_change_makes_no_plan_due():
    controller = a_controller(max_workers=3)
    controller.on_config(EndpointPatch(max_workers=3), NOW)
    assert controller.due == ""


def test_a_new_workergroup_makes_a_plan_due_and_its_removal_as_well():
    controller = a_controller()
    controller.on_workergroup(group(2), NOW)
    assert controller.due == "a workergroup was added"
    controller.observe(IDS, NOW)
    controller.on_workergroup_removed(2, NOW)
    assert controller.due == "a workergroup was removed"


def test_a_rolling_update_raises_the_revision_and_its_cancel_keeps_the_workers():
    controller = a_controller(worker("w1"))
    controller.on_update_workers(1, NOW)
    assert controller.state.workergroup(1).revision == 2
    assert known(controller).revision == 1
    controller.on_update_cancelled(1, NOW)
    assert known(controller).revision == 2


def test_unblocked_hosts_make_a_plan_due_only_if_one_was_blocked():
    controller = a_controller()
    assert controller.on_hosts_unblocked((), NOW) == ()
    assert controller.due == ""
    failure = HostFailure(machine_id=7, until=NOW + 100, reason="no GPU")
    controller.state.record.learned = MachineStats(failed_hosts=(failure,))
    assert controller.on_hosts_unblocked((), NOW) == (7,)
    assert controller.due == "1 hosts may be rented again"


def test_a_rotated_key_needs_no_plan():
    controller = a_controller()
    assert controller.on_key_rotated(60.0, NOW) == 2
    assert controller.state.record.key_overlap_until == NOW + 60
    assert controller.due == ""


def test_advice_is_planned_until_it_is_withdrawn_or_the_endpoint_is_deleted():
    controller = a_controller(worker("w1"))
    controller.on_advise(Advise(config=EndpointPatch(target_util=0.5)), NOW)
    assert controller.advice is not None
    controller.on_delete("deleted by a user", NOW)
    assert controller.advice is None


def test_a_delete_is_noted_once():
    controller = a_controller()
    controller.on_delete("deleted by a user", NOW)
    controller.on_delete("deleted again", NOW)
    assert reasons(controller.state) == ["deleted by a user"]
    assert controller.due == "the endpoint is deleted"


# plans and the operations in them


def test_no_plan_is_due_after_an_observation():
    controller = a_controller()
    controller.on_timer()
    controller.observe(IDS, NOW)
    assert controller.due == ""


def test_a_plan_without_a_time_is_repeated_after_the_fallback():
    controller = a_controller()
    assert ordered(controller) == ()
    assert controller.state.record.replan_at == NOW + FALLBACK_SECONDS


def test_a_failed_planner_is_asked_again_soon():
    controller = a_controller()
    controller.on_plan_failed("division by zero", controller.observe(IDS, NOW), NOW)
    assert controller.state.record.replan_at == NOW + REPLAN_SECONDS
    assert reasons(controller.state) == ["planner: division by zero"]


def test_a_refused_operation_leaves_a_line():
    controller = a_controller()
    decision = Decision(plan=Plan(), refused=("stop w1: it takes requests and was not drained",))
    controller.on_plan(decision, controller.observe(IDS, NOW), NOW)
    assert reasons(controller.state) == ["refused: stop w1: it takes requests and was not drained"]


def test_a_recruit_records_the_worker_before_it_is_rented():
    controller = a_controller()
    rent = Recruit(launch_id="a1", workergroup_id=1, offer=offer(5), reason="load", perf_estimate=90.0)
    (effect,) = ordered(controller, rent)
    assert isinstance(effect, CreateInstance)
    assert (known(controller, "a1").state, known(controller, "a1").operation) == (S.PENDING, "create")
    assert controller.state.record.pending_offers["a1"].id == 5
    assert ordered(controller, rent) == ()


@pytest.mark.parametrize(
    ("operation", "state", "after", "asked"),
    [
        (Activate(launch_id="w1", reason="load"), COLD, S.STARTING, "start"),
        (Reboot(launch_id="w1", reason="error"), S.ERROR, S.REBOOTING, "reboot"),
        (Destroy(launch_id="w1", reason="surplus"), COLD, S.DESTROYING, "destroy"),
        (Stop(launch_id="w1", reason="surplus"), S.STARTING, S.STOPPING, "stop"),
    ],
    ids=["activate", "reboot", "destroy", "stop"],
)
def test_an_operation_changes_the_record_and_asks_the_marketplace(operation, state, after, asked):
    controller = a_controller(worker("w1", state, loaded_once=True, instance_id=9))
    (effect,) = ordered(controller, operation)
    assert isinstance(effect, ChangeInstance)
    assert (known(controller).state, known(controller).operation) == (after, asked)
    assert reasons(controller.state) == [operation.reason]
    assert list(controller.in_flight) == ["w1"]


def test_a_drain_and_its_cancel_ask_the_marketplace_for_nothing():
    controller = a_controller(worker("w1"))
    drain = Drain(since=NOW, deadline=NOW + 60, goal=Goal.STOP, reason="surplus")
    assert ordered(controller, StartDrain(launch_id="w1", drain=drain, reason="surplus")) == ()
    assert known(controller).drain == drain
    assert ordered(controller, CancelDrain(launch_id="w1", reason="load")) == ()
    assert known(controller).drain is None


def test_an_operation_on_a_worker_with_another_one_in_flight_is_dropped():
    controller = a_controller(worker("w1", COLD, operation="stop"))
    assert ordered(controller, Activate(launch_id="w1", reason="load")) == ()


def test_an_operation_that_the_lifecycle_forbids_is_noted_as_a_failure():
    controller = a_controller(worker("w1"))
    assert ordered(controller, Activate(launch_id="w1", reason="load")) == ()
    assert "activate of worker w1, which is IDLE" in reasons(controller.state)[-1]


def test_a_worker_without_an_instance_is_not_stopped():
    controller = a_controller(worker("w1", S.LOADING, instance_id=None, loaded_once=False))
    assert ordered(controller, Stop(launch_id="w1", reason="surplus")) == ()
    assert reasons(controller.state)[-1] == "stop: it has no instance yet"


def test_a_stop_is_dropped_if_the_worker_became_ready_while_the_plan_was_made():
    controller = a_controller(worker("w1", S.MODEL_LOADING, loaded_once=False))
    seen = controller.observe(IDS, NOW)
    controller.state.record.workers["w1"] = worker("w1")
    stop = Plan(operations=(Stop(launch_id="w1", reason="surplus"),))
    assert controller.on_plan(Decision(plan=stop), seen, NOW) == ()
    assert controller.due == "a worker was ready before a plan knew it"


def test_one_list_and_one_search_of_a_workergroup_are_in_flight_at_a_time():
    controller = a_controller()
    asked = (Search(workergroup_id=1, reason="load"), PollInstances(reason="steady"))
    assert [type(each) for each in ordered(controller, *asked)] == [SearchOffers, ListInstances]
    assert ordered(controller, *asked) == ()
    seen = controller.observe(IDS, NOW)
    assert (seen.listing_in_progress, seen.searching) == (True, (1,))


def test_a_list_of_known_workers_asks_for_their_launches_unless_bills_are_due():
    controller = a_controller(worker("w1", instance_id=9))
    controller.state.record.ledger = CostLedger(since=NOW, settled_at=NOW)
    (known_only,) = ordered(controller, PollInstances(reason="moving", whole=False))
    assert (known_only.launch_ids, known_only.known_ids) == (("w1",), (9,))
    controller.on_result(known_only, ListedInstances(), NOW)
    later = NOW + BILLS_SECONDS
    (whole,) = ordered(controller, PollInstances(reason="moving", whole=False), at=later)
    assert (whole.launch_ids, whole.bills_since is None) == ((), False)


def test_what_keeps_capacity_hot_is_logged_when_it_changes_and_not_at_every_burst():
    controller = a_controller(worker("w1"))
    load = Targets(hot_kept=420.0, kept_for="the predicted load", kept_by="forecast", kept_sentence=3)
    peaks = replace(load, kept_for="recent peaks", kept_by="remember_demand", kept_sentence=6)
    for number, targets in enumerate((load, load, peaks, load, peaks)):
        ordered(controller, targets=targets, at=NOW + number)
    assert reasons(controller.state) == ["420 load/s stays hot for the predicted load; sentence 3, forecast"]
    ordered(controller, targets=peaks, at=NOW + KEEP_LINE_SECONDS)
    (_, line) = controller.state.log.lines
    assert (line.kind, line.subject) == ("keep", "endpoint")
    assert line.reason == "420 load/s stays hot for recent peaks; sentence 6, remember_demand"
    assert line.numbers == {"hot_kept": 420.0, "hot_ready": 0.0, "sentence": 6.0}


def test_the_planner_of_a_real_endpoint_says_what_it_keeps():
    controller = a_controller(worker("w1"), min_load=80.0)
    seen = controller.observe(IDS, NOW)
    controller.on_plan(Decision(plan=plan(seen)), seen, NOW)
    (line,) = [each for each in controller.state.log.lines if each.kind == "keep"]
    assert line.numbers["hot_kept"] == 80.0
    assert line.reason == "80 load/s stays hot for min_load; sentence 4, estimate_demand"


# results


def test_the_offers_of_a_search_are_kept_with_their_revision():
    controller = a_controller()
    (effect,) = ordered(controller, Search(workergroup_id=1, reason="load"))
    controller.on_result(effect, FoundOffers(offers=(offer(5),)), NOW + 1)
    found = controller.state.offers[1]
    assert (found.offers[0].id, found.searched_at, found.revision, found.error) == (5, NOW + 1, 1, "")
    assert controller.due == "a search answered"
    assert controller.in_flight == {}


def test_a_failed_search_is_kept_as_an_error():
    controller = a_controller()
    (effect,) = ordered(controller, Search(workergroup_id=1, reason="load"))
    controller.on_result(effect, Failed(kind="Unauthorised", text="the key is wrong"), NOW)
    assert controller.state.offers[1].error == "Unauthorised: the key is wrong"
    assert reasons(controller.state)[-1] == "search: Unauthorised: the key is wrong"


def test_a_created_instance_belongs_to_its_worker():
    controller = a_controller()
    (effect,) = ordered(controller, Recruit(launch_id="a1", workergroup_id=1, offer=offer(5), reason="load"))
    controller.on_result(effect, CreatedInstance(instance_id=9), NOW)
    assert (known(controller, "a1").instance_id, known(controller, "a1").state) == (9, S.CREATING)
    assert controller.state.record.pending_offers == {}
    assert controller.due == "the create of a1 ended"


def test_a_create_that_lost_its_offer_removes_the_worker():
    controller = a_controller()
    (effect,) = ordered(controller, Recruit(launch_id="a1", workergroup_id=1, offer=offer(5), reason="load"))
    controller.on_result(effect, Failed(kind="OfferGone", text="rented"), NOW)
    assert known(controller, "a1") is None


def test_a_confirmed_destroy_removes_the_worker():
    controller = a_controller(worker("w1", COLD, instance_id=9))
    (effect,) = ordered(controller, Destroy(launch_id="w1", reason="surplus"))
    controller.on_result(effect, Done(confirmed=True), NOW)
    assert known(controller) is None
    assert controller.state.record.workers_gone == 1


def test_a_failed_list_changes_no_worker():
    controller = a_controller(worker("w1", instance_id=9))
    (effect,) = ordered(controller, PollInstances(reason="steady"))
    controller.on_result(effect, Failed(kind="", text="503"), NOW)
    assert known(controller) is not None
    assert reasons(controller.state)[-1] == "list: 503"


def test_a_list_releases_an_instance_that_no_worker_knows():
    controller = a_controller()
    (effect,) = ordered(controller, PollInstances(reason="steady"))
    orphan = Instance(id=9, label=f"{PREFIX}gone", actual_status="running")
    controller.on_result(effect, ListedInstances(instances=(orphan,)), NOW)
    assert known(controller, "gone").state is S.DESTROYING
    assert controller.due == "the marketplace's list brought news"


# a new run, and the end


def test_a_new_run_asks_again_for_what_was_in_flight():
    waking = worker("w1", S.STARTING, operation="start", instance_id=9)
    renting = worker("w2", S.PENDING, operation="create", instance_id=None)
    controller = a_controller(waking, renting)
    controller.state.record.pending_offers["w2"] = offer(5)
    effects = controller.resume(NOW)
    assert [(type(each), each.key, each.resumed) for each in effects] == [
        (ChangeInstance, "w1", True),
        (CreateInstance, "w2", True),
    ]


def test_a_new_run_releases_a_launch_whose_offer_was_not_carried_over():
    controller = a_controller(worker("w2", S.PENDING, operation="create", instance_id=None))
    assert controller.resume(NOW) == ()
    assert known(controller, "w2").state is S.DESTROYING
    assert "its offer was not carried over" in reasons(controller.state)[-1]


def test_a_deleted_endpoint_is_gone_after_a_late_list_without_instances():
    controller = a_controller()
    controller.on_delete("deleted by a user", NOW)
    assert ordered(controller) == ()
    assert controller.state.record.replan_at == NOW + LIST_LAG_SECONDS
    at = NOW + LIST_LAG_SECONDS
    (effect,) = ordered(controller, at=at)
    assert isinstance(effect, ListInstances)
    assert controller.state.record.replan_at == at + CONFIRM_SECONDS
    assert not controller.is_gone
    controller.on_result(effect, ListedInstances(), at)
    assert controller.is_gone


def test_a_deleted_endpoint_with_a_worker_is_not_gone():
    controller = a_controller(worker("w1"))
    controller.on_delete("deleted by a user", NOW)
    ordered(controller, at=NOW + 60)
    assert controller.state.record.emptied_at is None
    assert not controller.is_gone


def test_it_prints_its_workers_and_why_a_plan_is_due():
    controller = a_controller(worker("w1"))
    assert repr(controller) == "<EndpointController llm, 1 workers, plan due: no>"
