"""Wire types: strict for user input, tolerant for messages of peers."""

import pytest
from pydantic import ValidationError

from stoker_wire.control import EndpointSpec, workflow_id
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.market import Instance, Offer, Template
from stoker_wire.route import Route, RouteRequest, Waiting, is_route
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED, WorkerState
from stoker_wire.worker_status import FinishedRequests, WorkerStatus

ROUTE = {
    "url": "http://1.2.3.4:30",
    "signature": "c2ln",
    "cost": 256.0,
    "endpoint": "llm",
    "reqnum": 9,
    "request_idx": 9,
}


def test_a_route_request_of_the_official_client_is_read():
    asked = RouteRequest.model_validate(
        {"endpoint": "llm", "api_key": "k", "cost": 256, "request_idx": 0, "replay_timeout": 60.0}
    )
    assert (asked.endpoint, asked.cost, asked.request_idx) == ("llm", 256.0, 0)


def test_a_route_request_has_defaults_and_ignores_unknown_fields():
    asked = RouteRequest.model_validate({"endpoint": "llm", "from_the_future": 1})
    assert (asked.cost, asked.request_idx, asked.replay_timeout, asked.failed_url) == (100.0, 0, 60.0, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", ""),
        ("endpoint", "x" * 256),
        ("cost", -0.1),
        ("cost", float("nan")),
        ("cost", float("inf")),
        ("cost", 2e12),
        ("request_idx", -1),
        ("request_idx", 2**53 + 1),
        ("replay_timeout", -1),
        ("replay_timeout", 3601),
        ("failed_url", "x" * 2049),
    ],
)
def test_a_route_request_out_of_bounds_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        RouteRequest.model_validate({"endpoint": "llm", field: value})
    assert field in describe(caught.value)


@pytest.mark.parametrize("field", sorted(ROUTE))
def test_every_field_that_the_worker_needs_is_demanded_of_a_route(field):
    with pytest.raises(ValidationError):
        Route.model_validate({name: value for name, value in ROUTE.items() if name != field})


def test_a_route_keeps_unknown_fields_for_the_worker():
    route = Route.model_validate(ROUTE | {"__request_id": "abc"})
    assert route.model_dump()["__request_id"] == "abc"


def test_a_wait_has_no_url_and_an_index():
    waiting = Waiting(endpoint="llm", request_idx=1, status="a worker boots", reason="booting", eta_s=140)
    assert "url" not in waiting.model_dump()
    assert not is_route(waiting.model_dump())
    with pytest.raises(ValidationError):
        Waiting(endpoint="llm", request_idx=0, status="")


def test_the_mere_presence_of_a_url_makes_a_route():
    assert is_route({"url": None})
    assert is_route(ROUTE)
    assert not is_route({})


OFFICIAL_REPORT = {
    "id": 17,
    "mtoken": "7.abc.mac",
    "version": "1.1.0",
    "loadtime": 42.5,
    "cur_load": 256.0,
    "new_load": 512.0,
    "rej_load": 0.0,
    "cur_perf": 100.0,
    "max_perf": 812.5,
    "error_msg": "",
    "num_requests_working": 1,
    "num_requests_recieved": 12,
    "working_request_idxs": [9],
    "additional_disk_usage": 0.0,
    "disk_usage": 31.5,
    "cur_capacity": 0,
    "max_capacity": 0,
    "url": "http://1.2.3.4:30",
}


def test_a_report_of_the_official_worker_is_read_and_is_ready():
    status = WorkerStatus.model_validate(OFFICIAL_REPORT)
    assert status.ready
    assert status.working_request_idxs == (9,)
    assert (status.draining, status.queued, status.gpus) == (False, 0, ())


@pytest.mark.parametrize("missing", [{"loadtime": 0.0}, {"max_perf": 0.0}, {"error_msg": "benchmark failed"}])
def test_a_worker_is_ready_when_loaded_measured_and_without_error(missing):
    assert not WorkerStatus.model_validate(OFFICIAL_REPORT | missing).ready


@pytest.mark.parametrize(
    "field", ["loadtime", "cur_load", "new_load", "rej_load", "cur_perf", "max_perf", "queued"]
)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_no_negative_or_endless_figure_is_believed(field, value):
    with pytest.raises(ValidationError):
        WorkerStatus.model_validate(OFFICIAL_REPORT | {field: value})


def test_unknown_fields_of_a_newer_worker_are_ignored():
    status = WorkerStatus.model_validate(
        OFFICIAL_REPORT | {"mood": "fine", "gpus": [{"index": 0, "name": "H100", "fan": 3}]}
    )
    assert status.gpus[0].name == "H100"


def test_finished_requests_of_the_official_worker_are_read():
    finished = FinishedRequests.model_validate(
        {
            "worker_id": 17,
            "mtoken": "t",
            "requests": [
                {
                    "request_idx": 9,
                    "success": True,
                    "status": "Success",
                    "entered_queue_at": 1.0,
                    "work_started_at": 1.5,
                    "work_completed_at": 2.0,
                }
            ],
        }
    )
    assert finished.requests[0].status == "Success"


def test_an_offer_names_its_machine_kind():
    assert (
        Offer.model_validate({"id": 1, "gpu_name": "RTX 4090", "num_gpus": 2, "reliability2": 0.99}).kind
        == "2x RTX 4090"
    )
    assert Offer.model_validate({"id": 1, "reliability2": 0.99}).reliability == 0.99
    with pytest.raises(ValidationError):
        Offer.model_validate({"id": 1, "dph_total": -1})


def test_an_instance_with_few_fields_is_valid():
    instance = Instance.model_validate({"id": 5, "actual_status": None, "something": {}})
    assert (instance.actual_status, instance.label) == (None, None)


def test_a_templates_filters_may_be_text_or_an_object():
    assert (
        Template.model_validate({"id": 1, "extra_filters": '{"a": {"eq": 1}}'}).extra_filters
        == '{"a": {"eq": 1}}'
    )
    assert Template.model_validate({"id": 1, "extra_filters": {"a": {"eq": 1}}}).extra_filters == {
        "a": {"eq": 1}
    }


def test_a_spec_names_one_workflow():
    spec = EndpointSpec(endpoint_name="llm", endpoint_id=7)
    assert workflow_id(spec.endpoint_name) == "endpoint/llm"
    assert (spec.owner, spec.key_version, spec.carried) == ("default", 1, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint_name", ""),
        ("endpoint_name", "a  b"),
        ("endpoint_name", " a"),
        ("endpoint_name", "a "),
        ("endpoint_name", "a/b"),
        ("endpoint_name", "x" * 256),
        ("endpoint_name", "llm\n"),
        ("endpoint_id", 0),
        ("endpoint_id", 2**31),
        ("owner", ""),
        ("owner", "a b"),
        ("key_version", 0),
        ("surprise", 1),
    ],
)
def test_a_spec_out_of_bounds_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        EndpointSpec.model_validate({"endpoint_name": "llm", "endpoint_id": 7, field: value})
    assert field in describe(caught.value)


def test_a_gpu_is_billed_only_while_it_is_held():
    assert WorkerState.READY in GPU_BILLED
    assert not GPU_BILLED & {
        WorkerState.PENDING,
        WorkerState.CREATING,
        WorkerState.CREATED,
        WorkerState.STOPPING,
        WorkerState.INACTIVE,
        WorkerState.ERROR,
        WorkerState.DESTROYING,
    }
    assert {WorkerState.PENDING, WorkerState.ERROR, WorkerState.DESTROYING} == STORAGE_UNBILLED


def test_states_are_printed_in_capitals_and_spoken_in_small_letters():
    assert (WorkerState.READY.value, WorkerState.READY.printed) == ("idle", "IDLE")
    assert [
        state.value for state in WorkerState if state.words != state.words.lower() or "_" in state.words
    ] == []
    assert WorkerState("stopped") is WorkerState.INACTIVE


def test_a_problem_is_readable_by_both_kinds_of_client():
    problem = Problem(409, "name_taken", "there is one; take another name", headers={"Retry-After": "1"})
    assert problem.body() == {
        "success": False,
        "error": "name_taken",
        "msg": "there is one; take another name",
        "error_msg": "there is one; take another name",
    }
    assert repr(problem) == "<Problem 409 name_taken: there is one; take another name>"
    assert str(problem) == problem.message


def test_a_description_names_the_field_the_expected_and_the_received_value():
    with pytest.raises(ValidationError) as caught:
        RouteRequest.model_validate({"endpoint": "llm", "cost": "a lot"})
    said = describe(caught.value)
    assert "cost" in said
    assert "'a lot'" in said
    assert "pydantic" not in said
    assert describe(ValueError("plain")) == "plain"


def test_a_description_does_not_repeat_whole_bodies():
    with pytest.raises(ValidationError) as caught:
        RouteRequest.model_validate({"api_key": "secret-key"})
    assert "secret-key" not in describe(caught.value)


def test_a_report_names_its_process_by_its_incarnation_or_by_its_exact_loading_time():
    assert WorkerStatus(id=1, incarnation="8f14", loadtime=12.345678).process == "8f14"
    assert WorkerStatus(id=1, loadtime=12.345678).process == "loadtime-12.345678"
    assert WorkerStatus(id=1, loadtime=0.0).process == ""
    # rounded times are the same for many processes
    assert WorkerStatus(id=1, loadtime=12.345).process == ""


def test_the_message_of_an_own_check_is_shown_without_the_words_of_pydantic():
    with pytest.raises(ValidationError) as caught:
        KeyEdit.model_validate({"op": "create", "name": "a/b"})
    assert describe(caught.value).startswith("name: expected 1 to 64 letters")
