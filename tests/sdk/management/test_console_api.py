"""Endpoints, workergroups, workers and logs through the console API."""

from dataclasses import replace

import pytest

import stoker
from stoker_wire.endpoint import ENDPOINT_NAME_CHARS_MAX, EndpointConfig
from tests.sdk.conftest import ACCOUNT_KEY, QUICK
from tests.sdk.peers import json_reply, problem, raw_reply

ENDPOINTS = "/api/v0/endptjobs/"
GROUPS = "/api/v0/workergroups/"


def bodies(peers, method: str, path: str):
    return [seen.body for called, seen in peers.console_calls if (called, seen.path) == (method, path)]


async def test_endpoints_are_found_by_name_and_by_id(peers, client):
    peers.endpoint("img", 8)
    assert (await client.endpoints.get("llm")).id == 7
    assert (await client.endpoints.get(8)).endpoint_name == "img"
    assert (await client.endpoints.get("8")).endpoint_name == "img"
    assert [endpoint.name for endpoint in await client.get_endpoints()] == ["llm", "img"]


ODD_NAMES = ["4090", "0", "-1", "--help", "None", "true", "1e3", "NaN", "x" * ENDPOINT_NAME_CHARS_MAX]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_that_looks_like_an_id_or_an_option_is_a_name(peers, client, name):
    peers.endpoint("another", 4090)
    peers.endpoint(name, 8)
    peers.console_replies["GET", ENDPOINTS + "8/costs/"] = json_reply({"dollars": 1.0})
    peers.console_replies["DELETE", ENDPOINTS + "8/"] = json_reply({"success": True})
    peers.console_replies["POST", GROUPS] = json_reply({"success": True, "id": 98})
    peers.console_replies["GET", GROUPS] = json_reply(
        {"success": True, "results": [{"id": 5, "endpoint_id": 8, "endpoint_name": name}]}
    )
    assert (await client.endpoints.get(name)).id == 8
    assert (await client.get_endpoint(name)).name == name
    assert (await client.endpoints.costs(name))["dollars"] == 1.0
    assert [group.id for group in await client.workergroups.list(endpoint=name)] == [5]
    await client.workergroups.create(name, template_hash="abc")
    (made,) = bodies(peers, "POST", GROUPS)
    assert made.get("endpoint_id", 8) == 8
    assert made.get("endpoint_name", name) == name
    await client.endpoints.delete(name)
    for by_id in (4090, "id:4090"):
        assert (await client.endpoints.get(by_id)).endpoint_name == "another", "an id is asked for as an id"


@pytest.mark.parametrize("wrong", [True, 1.5, None, "id:", "id:x", "id:-1"])
async def test_a_value_that_is_neither_a_name_nor_an_id_is_refused(peers, client, wrong):
    with pytest.raises(stoker.Invalid):
        await client.endpoints.delete(wrong)
    assert peers.console_calls == []


async def test_workergroups_of_an_id_differ_from_those_of_a_name_of_the_same_digits(peers, client):
    groups = [{"id": 5, "endpoint_id": 8, "endpoint_name": "4090"}, {"id": 6, "endpoint_id": 4090}]
    peers.console_replies["GET", GROUPS] = json_reply({"success": True, "results": groups})
    found = {asked: await client.workergroups.list(endpoint=asked) for asked in ("4090", 4090, "id:4090")}
    assert {asked: [group.id for group in groups] for asked, groups in found.items()} == {
        "4090": [5],
        4090: [6],
        "id:4090": [6],
    }


async def test_a_503_is_retried_and_its_message_is_in_the_final_error(peers):
    short = replace(QUICK, engine_outage_seconds_max=0.3)
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=short) as client:
        await _is_refused_for_a_while(peers, client)


async def _is_refused_for_a_while(peers, client):
    peers.console_replies["POST", GROUPS] = problem(503, "endpoints_not_read", "Temporal cannot be read now")
    with pytest.raises(stoker.EngineUnavailable, match="Temporal cannot be read now"):
        await client.workergroups.create(7, template_id=4)
    assert len(bodies(peers, "POST", GROUPS)) > 1, "nothing had been begun"
    peers.console_replies["GET", ENDPOINTS] = problem(
        503, "endpoints_not_read", "Temporal cannot be read now"
    )
    with pytest.raises(stoker.EngineUnavailable, match="Temporal cannot be read now"):
        await client.endpoints.get("nope")


async def test_a_200_with_no_such_endpoint_is_not_found(peers, client):
    answer = {
        "success": False,
        "code": "no_such_endpoint",
        "error": "there is none",
        "error_msg": "there is none",
    }
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply(answer)
    with pytest.raises(stoker.EndpointNotFound, match="there is none"):
        await client.endpoints.workers(9)


async def test_the_error_for_an_unknown_endpoint_lists_the_existing_ones(client):
    with pytest.raises(stoker.EndpointNotFound, match=r"'nope'.*llm"):
        await client.get_endpoint("nope")


async def test_a_record_reads_both_names_of_min_workers_and_hides_its_key(peers, client):
    record = await client.endpoints.get("llm")
    assert record.min_workers == 5
    assert peers.endpoint_key not in repr(record)
    assert peers.endpoint_key not in str(record.as_json())
    assert record.as_json(show_key=True)["api_key"] == record.key == peers.endpoint_key


async def test_create_sends_only_the_given_parameters(peers, client):
    async def create(request, body):
        peers.endpoint(body["endpoint_name"], 9, **{k: v for k, v in body.items() if k != "endpoint_name"})
        return await json_reply({"success": True, "result": 9})(request, body)

    peers.console_replies["POST", ENDPOINTS] = create
    record = await client.endpoints.create("new", max_workers=3, min_workers=0, endpoint_state="active")
    assert record.id == 9
    assert bodies(peers, "POST", ENDPOINTS) == [
        {"endpoint_name": "new", "max_workers": 3, "cold_workers": 0, "endpoint_state": "active"}
    ]
    await client.endpoints.create("typed", EndpointConfig(min_load=0, target_util=0.5), max_workers=2)
    assert bodies(peers, "POST", ENDPOINTS)[1] == {
        "endpoint_name": "typed",
        "min_load": 0.0,
        "target_util": 0.5,
        "max_workers": 2,
    }


async def test_a_create_succeeds_although_another_engine_does_not_list_it_yet(peers, client):
    peers.console_replies["POST", ENDPOINTS] = json_reply({"success": True, "result": 99})
    peers.console_replies["POST", GROUPS] = json_reply({"success": True, "id": 98})
    peers.console_replies["GET", GROUPS] = json_reply({"success": True, "results": []})
    record = await client.endpoints.create("new", max_workers=3)
    assert (record.id, record.endpoint_name, record.max_workers) == (99, "new", 3)
    assert (await client.workergroups.create("new", template_hash="abc")).id == 98


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_worker": 3}, "max_worker"),
        ({"target_util": 1.5}, "target_util"),
        ({"endpoint_state": "off"}, "endpoint_state"),
    ],
)
async def test_a_bad_parameter_is_refused_before_the_call(peers, client, parameters, sentence):
    with pytest.raises(stoker.Invalid, match=sentence):
        await client.endpoints.create("new", **parameters)
    with pytest.raises(stoker.Invalid, match=sentence):
        await client.endpoints.update("llm", **parameters)
    assert peers.console_calls == []


async def test_update_and_delete_name_the_endpoint_by_its_id(peers, client):
    peers.console_replies["PUT", ENDPOINTS + "7/"] = json_reply({"success": True})
    peers.console_replies["DELETE", ENDPOINTS + "7/"] = json_reply({"success": True})
    await client.endpoints.update("llm", max_workers=2)
    assert bodies(peers, "PUT", ENDPOINTS + "7/") == [{"endptjob_id": 7, "max_workers": 2}]
    endpoint = await client.get_endpoint("llm")
    await endpoint.update(endpoint_state="stopped")
    await endpoint.delete()
    assert len(bodies(peers, "DELETE", ENDPOINTS + "7/")) == 1
    with pytest.raises(stoker.Invalid, match="nothing to change"):
        await client.endpoints.update("llm")


async def test_a_refusal_carries_the_engines_message(peers, client):
    peers.console_replies["POST", ENDPOINTS] = problem(
        400, "endpoint_exists", "there is an endpoint named 'llm' already"
    )
    with pytest.raises(stoker.Refused, match="already") as caught:
        await client.endpoints.create("llm")
    assert (caught.value.status, caught.value.code) == (400, "endpoint_exists")
    peers.console_replies["PUT", ENDPOINTS + "7/"] = json_reply(
        {"success": False, "error": "no", "msg": "it is being deleted"}
    )
    with pytest.raises(stoker.Refused, match="being deleted"):
        await client.endpoints.update(7, max_workers=1)


async def test_a_wrong_account_key_is_unauthorised(peers):
    async with stoker.Serverless("wrong", url=peers.url, retry=QUICK) as client:
        with pytest.raises(stoker.Unauthorised, match="opens nothing"):
            await client.endpoints.list()


async def test_an_endpoint_key_cannot_manage(peers):
    async with stoker.Serverless(peers.endpoint_key, url=peers.url, retry=QUICK) as client:
        endpoint = await client.get_endpoint("llm")
        with pytest.raises(stoker.Unauthorised):
            await endpoint.workers()
        with pytest.raises(stoker.Invalid, match="by name"):
            await client.get_endpoint(7)


async def test_workers_are_read_from_the_engines_rows(peers, client):
    row = {
        "id": 41,
        "status": "idle",
        "cur_load": 5.0,
        "perf": 9,
        "measured_perf": 8.5,
        "reqs_working": 1,
        "kind": "1x A",
    }
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply([row])
    peers.console_replies["POST", "/get_autogroup_workers/"] = json_reply({"workers": [row]})
    for workers in (
        await client.endpoints.workers("llm"),
        await client.workergroups.workers(3),
        await (await client.get_endpoint("llm")).workers(),
    ):
        (worker,) = workers
        assert (worker.id, worker.status, worker.cur_load, worker.measured_perf) == (41, "idle", 5.0, 8.5)
        assert worker.as_json()["kind"] == "1x A"
    peers.console_replies["POST", "/get_endpoint_workers/"] = json_reply(
        {"error": "gone", "error_msg": "it is gone"}
    )
    with pytest.raises(stoker.Refused, match="it is gone"):
        await client.endpoints.workers("llm")


async def test_logs_have_four_levels_and_a_tail(peers, client):
    peers.console_replies["POST", "/get_endpoint_logs/"] = json_reply(
        {"info0": "a\n", "info1": "b\n", "trace": "c\n", "debug": "d\n"}
    )
    logs = await client.endpoints.logs("llm", tail=5)
    assert [logs.level(number) for number in range(4)] == ["a\n", "b\n", "c\n", "d\n"]
    assert bodies(peers, "POST", "/get_endpoint_logs/") == [{"id": 7, "tail": 5}]
    with pytest.raises(stoker.Invalid, match="tail"):
        await client.endpoints.logs("llm", tail=0)


async def test_status_decisions_and_costs(peers, client):
    endpoint = await client.get_endpoint("llm")
    peers.console_replies["GET", ENDPOINTS + "7/status/"] = json_reply(
        {"state": "active", "workers": {"IDLE": 2}}
    )
    peers.console_replies["GET", ENDPOINTS + "7/costs/"] = json_reply({"dollars": 1.5})
    peers.console_replies["GET", ENDPOINTS + "7/decisions/"] = json_reply(
        {"decisions": [{"kind": "recruit", "reason": "why"}]}
    )
    assert (await endpoint.status())["workers"] == {"IDLE": 2}
    assert (await endpoint.costs())["dollars"] == 1.5
    assert await endpoint.decisions(tail=3) == [{"kind": "recruit", "reason": "why"}]
    assert peers.console_calls[-1][1].query == {"tail": "3"}


async def test_a_what_if_config_is_checked_before_the_call(peers, client):
    path = ENDPOINTS + "7/advice/"
    peers.console_replies["GET", path] = json_reply({"advice": {"active": True, "summary": "over 10 min"}})
    peers.console_replies["PUT", path] = peers.console_replies["DELETE", path] = json_reply({"success": True})
    await client.endpoints.advise("llm", target_util=0.8, cold_workers=2, error_budget=0.02)
    assert bodies(peers, "PUT", path) == [{"target_util": 0.8, "min_workers": 2, "error_budget": 0.02}]
    assert (await client.endpoints.advice("llm"))["summary"] == "over 10 min"
    await client.endpoints.stop_advice(7)
    for wrong in ({"target_util": 8}, {"speed": 1}, {}, {"error_budget": 0}):
        with pytest.raises(stoker.Invalid):
            await client.endpoints.advise("llm", **wrong)
    assert len(bodies(peers, "PUT", path)) == 1


async def test_a_workergroup_is_created_for_an_endpoint_by_name_or_id(peers, client):
    groups = [
        {"id": 5, "endpoint_id": 7, "endpoint_name": "llm", "template_hash": "abc", "search_params": "x=1"}
    ]
    peers.console_replies["POST", GROUPS] = json_reply({"success": True, "id": 5})
    peers.console_replies["GET", GROUPS] = json_reply({"success": True, "results": groups})
    made = await client.workergroups.create("llm", template_hash="abc", search_params="x=1", test_workers=2)
    assert (made.id, made.template_hash) == (5, "abc")
    await client.workergroups.create(7, template_id=4)
    assert bodies(peers, "POST", GROUPS) == [
        {"endpoint_name": "llm", "search_params": "x=1", "template_hash": "abc", "test_workers": 2},
        {"endpoint_id": 7, "search_params": "", "template_id": 4},
    ]
    assert [group.id for group in await client.workergroups.list(endpoint="llm")] == [5]
    assert await client.workergroups.list(endpoint=8) == []
    with pytest.raises(stoker.NotFound, match="workergroup 6"):
        await client.workergroups.get(6)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "template"),
        ({"template_id": 1, "max_workers": -1}, "max_workers"),
        ({"template_id": 1, "nope": 1}, "nope"),
    ],
)
async def test_a_bad_workergroup_is_refused_before_the_call(peers, client, parameters, sentence):
    with pytest.raises(stoker.Invalid, match=sentence):
        await client.workergroups.create("llm", **parameters)
    assert peers.console_calls == []


async def test_a_workergroup_is_changed_updated_and_deleted(peers, client):
    peers.console_replies["PUT", GROUPS + "5/"] = json_reply({"success": True})
    peers.console_replies["DELETE", GROUPS + "5/"] = json_reply({"success": True})
    peers.console_replies["POST", "/update_workers/"] = json_reply({"success": True, "workers_to_update": 3})
    await client.workergroups.update(5, search_params="x=2")
    assert bodies(peers, "PUT", GROUPS + "5/") == [{"search_params": "x=2"}]
    assert await client.workergroups.update_workers(5) == 3
    await client.workergroups.delete(5)
    with pytest.raises(stoker.Invalid, match="nothing to change"):
        await client.workergroups.update(5)
    with pytest.raises(stoker.Invalid, match="gpu_ram"):
        await client.workergroups.update(5, gpu_ram=-1)


async def test_a_read_is_retried_after_server_errors(peers, client):
    answers = [problem(503, "temporal_unavailable", "try again"), raw_reply(b"Bad Gateway", "text/html", 502)]

    async def blink(request, body):
        if answers:
            return await answers.pop(0)(request, body)
        return await json_reply({"dollars": 1.0})(request, body)

    peers.console_replies["GET", ENDPOINTS + "7/costs/"] = blink
    assert (await client.endpoints.costs(7))["dollars"] == 1.0


async def test_a_create_that_may_have_happened_is_not_repeated(peers, client):
    peers.console_replies["POST", GROUPS] = problem(503, "temporal_timeout", "the change may still happen")
    with pytest.raises(stoker.EngineUnavailable, match="may or may not"):
        await client.workergroups.create(7, template_id=4)
    assert len(bodies(peers, "POST", GROUPS)) == 1


async def test_a_named_fault_of_the_engine_is_raised_without_retries(peers, client):
    peers.console_replies["GET", ENDPOINTS + "7/costs/"] = problem(
        502, "query_failed", "the workflow could not answer"
    )
    with pytest.raises(stoker.Refused, match="could not answer"):
        await client.endpoints.costs(7)
    assert len(peers.console_calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        json_reply({"success": True}),
        json_reply({"success": True, "results": [{"id": "seven"}]}),
        json_reply({"success": True, "results": "none"}),
        raw_reply(b"hello", "text/plain"),
        raw_reply(b"not here", "text/plain", 404),
    ],
)
async def test_an_answer_of_a_server_that_is_no_engine_is_malformed(peers, client, answer):
    peers.console_replies["GET", ENDPOINTS] = answer
    with pytest.raises(stoker.MalformedAnswer):
        await client.endpoints.list()


async def test_a_forced_delete_returns_the_destroyed_instances(peers, client):
    done = {"success": True, "msg": "endpoint llm was ended", "begun": True, "destroyed_instances": [5]}
    peers.console_replies["DELETE", ENDPOINTS + "7/"] = json_reply(done)
    assert (await client.endpoints.delete("llm", force=True))["destroyed_instances"] == [5]
    assert bodies(peers, "DELETE", ENDPOINTS + "7/") == [{"force": True}]


async def test_one_row_that_cannot_be_read_does_not_hide_the_others(peers, client):
    rows = [
        {"id": 7, "endpoint_name": "llm", "max_workers": "many"},
        {"id": 8, "endpoint_name": "other", "broken": "its workflow makes no progress"},
        {"id": 9, "endpoint_name": "whole"},
        {"id": False, "endpoint_name": "no id"},
        "no row",
    ]
    peers.console_replies["GET", ENDPOINTS] = json_reply({"success": True, "results": rows})
    sick, stuck, whole = await client.endpoints.list()
    assert (sick.id, sick.endpoint_name) == (7, "llm")
    assert "max_workers" in sick.broken
    assert stuck.broken == "its workflow makes no progress"
    assert whole.broken == ""
    groups = [{"id": 1, "endpoint_name": "llm", "gpu_ram": "much"}, {"id": 2, "gpu_ram": 24}]
    peers.console_replies["GET", GROUPS] = json_reply({"success": True, "results": groups})
    assert ["gpu_ram" in each.broken for each in await client.workergroups.list()] == [True, False]
