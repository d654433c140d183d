"""Invalid input is answered with a problem and changes nothing."""

import asyncio
import json

import httpx
import pytest

from hosts.serve import serve
from market.interface import Unauthorised
from market.vast.client import VastMarket
from tests.hosts.conftest import settings_for


async def problem(response, status: int, code: str) -> str:
    body = response.json()
    assert (response.status_code, body["success"], body["error"]) == (status, False, code), body
    assert body["msg"] == body["error_msg"]
    assert response.headers["Content-Type"] == "application/json"
    return body["msg"]


@pytest.mark.parametrize(
    "path", ["/api/v1/instances/", "/host/charges/", "/host/faults/", "/api/v0/template/"]
)
@pytest.mark.parametrize("key", ["", "Bearer wrong", "Bearer", "Basic test-key-0123456789", "Bearer ключ"])
async def test_a_call_without_a_known_key_is_refused(bench, path, key):
    response = await bench.http.get(path, headers={"Authorization": key.encode()})
    await problem(response, 401, "auth_error")


async def test_the_key_may_come_in_the_query(bench, tools):
    response = await bench.http.get(f"/api/v1/instances/?api_key={tools.KEY}", headers={"Authorization": ""})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b'"x"', b"\xff\xfe", b"nul", b"[" * 100_000, b'{"a": NaN}x', b"1" * 5000]
)
async def test_a_body_that_is_not_a_json_object_is_refused(bench, body):
    for method, path in (("POST", "/api/v0/bundles/"), ("PUT", f"/api/v0/asks/{await bench.offer()}/")):
        response = await bench.http.request(method, path, content=body)
        await problem(response, 400, "invalid_args")
    assert await bench.market.list() == []


async def test_a_body_that_is_too_large_is_refused(bench):
    response = await bench.http.post("/api/v0/bundles/", content=b" " * 1_100_000)
    await problem(response, 413, "body_too_large")


async def test_an_unknown_route_and_a_wrong_method_are_problems_too(bench):
    await problem(await bench.http.get("/api/v0/nothing/"), 404, "not_found")
    await problem(await bench.http.get("/api/v0/instances/abc/"), 404, "not_found")
    response = await bench.http.post("/api/v1/instances/")
    assert "GET" in await problem(response, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "query",
    [
        {"gpu_ram": {"bigger": 3}},
        {"gpu_ram": {"gt": "many"}},
        {"gpu_ram": {"gt": {"deep": 1}}},
        {"gpu_name": {"in": "RTX"}},
        {"bad name": {"eq": 1}},
        {"order": "dph;drop"},
        {"order": [["dph"]]},
        {"order": 7},
        {"limit": 0},
        {"limit": "many"},
        {"limit": True},
        {"allocated_storage": -1},
        {"type": "free"},
        {"type": ["bid"]},
    ],
)
async def test_a_search_that_cannot_be_read_is_refused_with_its_reason(bench, query):
    for response in (
        await bench.http.post("/api/v0/bundles/", json=query),
        await bench.http.put("/api/v0/search/asks/", json={"select_cols": ["*"], "q": query}),
    ):
        assert len(await problem(response, 400, "invalid_args")) > 10


@pytest.mark.parametrize(
    "body",
    [
        {"disk": "big"},
        {"disk": -1},
        {"price": 0},
        {"label": "x" * 2000},
        {"label": 7},
        {"args": {"a": 1}},
        {"args": "echo 'open"},
        {"args": ["a\0b"]},
        {"onstart": "a\0b"},
        {"target_state": "frozen"},
        {"template_id": "x"},
    ],
)
async def test_a_create_call_that_cannot_be_read_is_refused_and_rents_nothing(bench, body):
    offer = await bench.offer()
    response = await bench.http.put(f"/api/v0/asks/{offer}/", json={"template_hash_id": "sleeper", **body})
    await problem(response, 400, "invalid_args")
    assert await bench.market.list() == []


@pytest.mark.parametrize("body", [{}, {"state": "flying"}, {"label": "x" * 2000}, {"state": 3}])
async def test_a_change_that_means_nothing_is_refused(bench, body):
    instance_id = await bench.rent()
    response = await bench.http.put(f"/api/v0/instances/{instance_id}/", json=body)
    await problem(response, 400, "invalid_args")


@pytest.mark.parametrize("ids", [None, [], "1", [True], ["1"], {"a": 1}])
async def test_bulk_calls_need_a_list_of_ids(bench, ids):
    await problem(
        await bench.http.put("/api/v0/instances/", json={"ids": ids, "state": "stopped"}), 400, "invalid_args"
    )
    response = await bench.http.request("DELETE", "/api/v0/instances/", json={"instance_ids": ids})
    await problem(response, 400, "invalid_args")


@pytest.mark.parametrize(
    "query",
    [
        {"after_token": "nonsense"},
        {"after_token": "ÿ"},
        {"limit": "0"},
        {"limit": "26"},
        {"limit": "-1"},
        {"limit": "9" * 50},
        {"select_filters": "{"},
        {"select_filters": '{"label": {"like": "x"}}'},
        {"order_by": '[{"dir": "asc"}]'},
        {"order_by": "7"},
    ],
)
async def test_a_list_call_that_cannot_be_read_is_refused(bench, query):
    await problem(await bench.http.get("/api/v1/instances/", params=query), 400, "invalid_args")


@pytest.mark.parametrize("limit", ["000001" + "9" * 9, "000001" + "9" * 5000, "1" * 5000])
async def test_a_page_is_never_larger_than_the_most(bench, limit):
    await problem(await bench.http.get("/api/v1/instances/", params={"limit": limit}), 400, "invalid_args")


async def test_a_bill_asked_for_in_a_wrong_way_is_the_callers_fault(bench):
    for asked in ('{"day": {"gte": "soon"}}', '{"day": {"since": 1}}', "[1]"):
        answer = await bench.http.get("/api/v0/charges/", params={"select_filters": asked})
        await problem(answer, 400, "invalid_args")


async def test_half_a_surrogate_pair_is_refused_wherever_it_stands(bench):
    half = b'"\\ud800"'
    offer = await bench.offer()
    for body in (
        b'{"env":{"A":%b},"onstart":"true"}',
        b'{"env":{%b:"A"},"onstart":"true"}',
        b'{"args":[%b]}',
    ):
        await problem(
            await bench.http.put(f"/api/v0/asks/{offer}/", content=body % half), 400, "invalid_args"
        )
    assert await bench.offer() == offer, "nothing was rented"
    await problem(
        await bench.http.post("/api/v0/template/", content=b'{"tag":%b}' % half), 400, "invalid_args"
    )


async def test_the_list_is_filtered_and_ordered_as_asked(bench):
    ids = [await bench.rent(label="a"), await bench.rent(label="b")]
    by = json.dumps([{"col": "id", "dir": "desc"}])
    rows = (await bench.http.get("/api/v1/instances/", params={"order_by": by})).json()["instances"]
    assert [row["id"] for row in rows] == ids[::-1]
    only = json.dumps({"label": {"eq": "b"}})
    rows = (await bench.http.get("/api/v1/instances/", params={"select_filters": only})).json()["instances"]
    assert [row["id"] for row in rows] == ids[1:]


async def test_a_page_goes_on_although_its_last_instance_is_gone(bench):
    ids = [await bench.rent(), await bench.rent(), await bench.rent(kind="CPU large")]
    first = (await bench.http.get("/api/v1/instances/", params={"limit": "1"})).json()
    await bench.market.destroy(ids[0])
    rest = (await bench.http.get("/api/v1/instances/", params={"after_token": first["next_token"]})).json()
    assert [row["id"] for row in rest["instances"]] == ids[1:]


async def test_an_unknown_instance_is_shown_as_null(bench):
    assert (await bench.http.get("/api/v0/instances/99/?owner=me")).json() == {"instances": None}


async def test_a_log_address_is_secret_and_needs_no_key(bench):
    instance_id = await bench.rent(onstart="echo hello; exec sleep 1000")
    await bench.printed(instance_id, "hello")
    asked = await bench.http.put(f"/api/v0/instances/request_logs/{instance_id}/", json={"tail": "5"})
    address = asked.json()["result_url"]
    assert (await bench.http.get(address, headers={"Authorization": ""})).text == "hello\n"
    await problem(await bench.http.get("/host/logs/guessed"), 404, "no_such_log")


async def test_the_account_can_be_asked_for(bench):
    body = (await bench.http.get("/api/v0/users/current")).json()
    assert body["host_agreement_accepted"] is True


async def test_health_needs_no_key(bench):
    response = await bench.http.get("/healthz", headers={"Authorization": ""})
    assert response.json()["ok"] is True


@pytest.mark.parametrize("path", ["/healthz", "/no/such/path"])
async def test_an_unknown_expectation_is_refused_in_json_and_not_repeated(tmp_path, path):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings_for(tmp_path), ready=ready.set_result, stop=stop))
    async with httpx.AsyncClient(trust_env=False) as http:
        refused = await http.get(await ready + path, headers={"Expect": "200-canary"})
        await problem(refused, 417, "expectation_unknown")
        assert "canary" not in refused.text
        assert (
            await http.post(await ready + "/healthz", headers={"Expect": "100-continue"})
        ).status_code != 417
    stop.set()
    await serving


async def test_every_answer_is_exactly_application_json(bench):
    for path in ("/api/v0/users/current", "/api/v1/instances/", "/api/v0/template/", "/host/charges/"):
        assert (await bench.http.get(path)).headers["Content-Type"] == "application/json"
    assert (await bench.http.post("/api/v0/bundles/", json={})).headers["Content-Type"] == "application/json"


async def test_secrets_never_show_in_a_repr(bench):
    from market.interface import Launch

    await bench.rent(env={"MASTER_TOKEN": "very-secret-token"})
    shown = repr(Launch(label="x", env={"A": "very-secret-token"})) + repr(bench.host.settings)
    shown += "".join(repr(one) + repr(one.record) for one in bench.host.instances.values()) + repr(
        bench.market
    )
    assert "very-secret-token" not in shown
    assert "test-key" not in shown


async def test_a_wrong_key_is_unauthorised(bench):
    other = VastMarket(bench.url, "some-other-key")
    with pytest.raises(Unauthorised):
        await other.list()
    await other.close()
