"""The console API with the real workflow: Vast's calls for endpoints and workergroups."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from activities.instances import MarketActivities
from activities.secrets import DeploymentSecrets
from engine.settings import Timing
from market.fake import FakeMarket
from stoker_wire.control import workflow_id
from stoker_wire.endpoint import ENDPOINT_NAME_CHARS_MAX
from stoker_wire.market import Offer, Template
from tests.engine.conftest import ALICE, BOB, SECRET, Stage, WorkerDouble, start_temporal
from tests.engine.fake_endpoint_workflow import until
from workflows.temporal_worker.worker import WorkerSettings, build_workers

SECRETS = DeploymentSecrets(hmac_secret=SECRET, named={}, report_address="http://127.0.0.1:1")
TEMPLATE = Template(id=7, hash_id="tmpl", name="echo", image="img", env="-e MODEL=small")
OFFERS = [
    Offer(id=100 + n, machine_id=500 + n, gpu_name="RTX 4090", gpu_ram=24_000, dph_total=0.3, dlperf=60.0)
    for n in range(10)
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def real_temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server with the real workflow over a marketplace in memory."""
    env = await start_temporal()
    market = FakeMarket(OFFERS, clock=time.time, templates=[TEMPLATE], pull_seconds=0.2, start_seconds=0.1)
    activities = MarketActivities(market, SECRETS)
    rate = WorkerSettings(market_calls_per_second=100.0, graceful_shutdown_seconds=1.0)
    workers = build_workers(env.client, activities, rate)
    running = [asyncio.ensure_future(worker.run()) for worker in workers]
    yield env
    for worker in workers:
        await worker.shutdown()
    await asyncio.gather(*running)
    await env.shutdown()


class Console:
    """One account's calls."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage = stage
        self.key = key

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.stage.call(method, path, body, key=self.key)

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answered = await self(method, path, body)
        assert status == 200, answered
        return answered

    async def create(self, name: str, **config: Any) -> int:
        answered = await self.good("POST", "/api/v0/endptjobs/", {"endpoint_name": name} | config)
        return answered["result"]


@pytest_asyncio.fixture(loop_scope="session")
async def real_stage(real_temporal: WorkflowEnvironment) -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as http:
        stage = Stage(real_temporal, http)
        await stage.start_engine()
        yield stage
        await stage.close()


@pytest.fixture
def alice(real_stage: Stage) -> Console:
    return Console(real_stage, ALICE)


@pytest.fixture
def bob(real_stage: Stage) -> Console:
    return Console(real_stage, BOB)


async def test_a_created_endpoint_is_listed_at_once_with_the_official_fields(
    alice: Console,
) -> None:
    endpoint_id = await alice.create(
        "listed", max_workers=3, cold_workers=2, max_queue_time=None, client_id="me"
    )

    listed = (await alice.good("GET", "/api/v0/endptjobs/?client_id=me"))["results"]

    row = next(row for row in listed if row["id"] == endpoint_id)
    assert row["endpoint_name"] == "listed"
    assert row["api_key"].startswith(f"sk-ep-{endpoint_id}-1-")
    assert isinstance(row["user_id"], int)
    assert row["created_at"] == pytest.approx(time.time(), abs=60)
    assert (row["max_workers"], row["min_workers"], row["cold_workers"], row["max_queue_time"]) == (
        3,
        2,
        2,
        30.0,
    )
    shown = await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/")
    assert shown["result"] == row


async def test_a_repeated_create_returns_the_same_endpoint_and_a_different_one_is_refused(
    alice: Console, bob: Console
) -> None:
    first = await alice.create("twice", max_workers=3)
    again = await alice.create("twice", max_workers=3)
    assert again == first

    status, problem = await alice("POST", "/api/v0/endptjobs/", {"endpoint_name": "twice", "max_workers": 4})
    assert (status, problem["error"]) == (400, "endpoint_exists")
    status, problem = await bob("POST", "/api/v0/endptjobs/", {"endpoint_name": "twice", "max_workers": 3})
    assert (status, problem["error"]) == (400, "endpoint_exists")


async def test_an_endpoint_with_any_valid_name_is_used_and_deleted(alice: Console) -> None:
    names = ["4090", "0", "-1", "--help", "None", "true", "1e3", "n" * ENDPOINT_NAME_CHARS_MAX]
    await asyncio.gather(*(_use_and_delete(alice, name) for name in names))


async def _use_and_delete(alice: Console, name: str) -> None:
    endpoint_id = await alice.create(name, min_load=0, min_workers=0)
    one = f"/api/v0/endptjobs/{endpoint_id}/"
    assert (await alice.good("GET", one))["result"]["endpoint_name"] == name
    await alice.good("PUT", one, {"max_workers": 2, "endpoint_name": name})
    group = {"endpoint_name": name, "template_hash": "tmpl", "test_workers": 0}
    await alice.good("POST", "/api/v0/workergroups/", group)
    assert await alice.good("POST", "/get_endpoint_workers/", {"endpoint": name}) == []
    assert (await alice.good("GET", f"/openai/{name}/v1/models"))["data"][0]["id"] == name
    assert "url" not in await alice.good("POST", "/route/", {"endpoint": name, "cost": 1})
    await alice.good("DELETE", one)


async def test_workers_of_a_missing_endpoint_are_answered_in_the_official_way(
    alice: Console, bob: Console
) -> None:
    """200 with `error_msg`: the official client reads it as an empty list, and raises at a 404."""
    missing: list[tuple[str, dict[str, Any]]] = [
        ("/get_endpoint_workers/", {"id": 2_000_000_000}),
        ("/get_endpoint_workers/", {"endpoint": "nobody"}),
        ("/get_autogroup_workers/", {"id": 2_000_000_000}),
        ("/get_workergroup_workers/", {"id": 2_000_000_000}),
    ]
    for path, body in missing:
        message = await alice.good("POST", path, body)
        assert "there is no" in message["error_msg"] == message["error"], (path, body)
        assert message["code"].startswith("no_such_")
    mine = await alice.create("not-bobs", min_load=0, min_workers=0)
    hidden = await bob.good("POST", "/get_endpoint_workers/", {"id": mine})
    assert hidden["code"] == "no_such_endpoint"
    await alice.good("DELETE", f"/api/v0/endptjobs/{mine}/")


async def test_many_equal_creates_at_once_make_one_endpoint(alice: Console) -> None:
    ids = await asyncio.gather(*(alice.create("at-once", min_load=0) for _ in range(5)))
    assert len(set(ids)) == 1


async def test_a_change_ignores_null_fields_and_is_visible_at_once(alice: Console) -> None:
    endpoint_id = await alice.create("changed", max_workers=3, min_load=0)

    body = {"max_workers": 5, "target_util": None, "endptjob_id": endpoint_id, "endpoint_state": "suspended"}
    assert await alice.good("PUT", f"/api/v0/endptjobs/{endpoint_id}/", body) == {"success": True}

    row = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]
    assert (row["max_workers"], row["target_util"], row["min_load"]) == (5, 0.9, 0.0)
    assert row["endpoint_state"] == "suspended"


async def test_a_change_without_a_temporal_worker_is_answered_in_time_with_the_reason() -> None:
    env = await start_temporal()
    async with aiohttp.ClientSession() as http:
        stage = Stage(env, http)
        await stage.start_engine(timing=Timing(temporal_call_seconds=0.3))
        console = Console(stage, ALICE)
        endpoint_id = await console.create("nobody-home")
        change = {"endptjob_id": endpoint_id, "max_workers": 5}
        status, answered = await console("PUT", f"/api/v0/endptjobs/{endpoint_id}/", change)
        assert (status, answered["error"]) == (503, "no_temporal_worker")
        await stage.close()
    await env.shutdown()


async def test_a_call_while_temporal_itself_is_silent_does_not_blame_its_workers() -> None:
    env = await start_temporal()
    async with aiohttp.ClientSession() as http:
        stage = Stage(env, http)
        server = await stage.start_engine(timing=Timing(temporal_call_seconds=0.3))
        console = Console(stage, ALICE)
        endpoint_id = await console.create("silent")
        server.engine.endpoint_watcher.silent_seconds = lambda: 7.0  # type: ignore[method-assign]
        status, answered = await console("GET", f"/api/v0/endptjobs/{endpoint_id}/status/")
        assert (status, answered["error"]) == (503, "temporal_unavailable")
        assert answered["msg"] == "Temporal cannot answer now (no answer for 7 s); try again"
        await stage.close()
    await env.shutdown()


async def test_without_a_temporal_worker_every_call_that_needs_one_says_so_within_seconds() -> None:
    env = await start_temporal()
    async with aiohttp.ClientSession() as http:
        stage = Stage(env, http)
        await stage.start_engine(timing=Timing(temporal_call_seconds=60.0))
        console = Console(stage, ALICE)
        endpoint_id = await console.create("nobody-polls")
        one = f"/api/v0/endptjobs/{endpoint_id}/"
        group = {"endpoint_id": endpoint_id, "template_hash": "tmpl"}
        calls: list[tuple[str, str, Any]] = [
            ("PUT", one, {"max_workers": 5}),
            ("POST", one + "rotate_key/", {}),
            ("PUT", one + "advice/", {"target_util": 0.5}),
            ("DELETE", one + "advice/", None),
            ("POST", "/api/v0/workergroups/", group),
            *(("GET", f"{one}{page}/", None) for page in ("status", "decisions", "costs", "advice")),
            ("POST", "/get_endpoint_logs/", {"id": endpoint_id}),
        ]

        async def call(method: str, path: str, body: Any) -> tuple[int, str, str, str | None, float]:
            began = time.monotonic()
            headers = {"Authorization": f"Bearer {ALICE}"}
            url = stage.server.url + path
            async with http.request(method, url, json=body, headers=headers) as answer:
                message = await answer.json()
                after = answer.headers.get("Retry-After")
                return answer.status, message["error"], message["msg"], after, time.monotonic() - began

        for status, code, sentence, after, seconds in await asyncio.gather(*(call(*one) for one in calls)):
            assert (status, code, after) == (503, "no_temporal_worker", "5"), sentence
            assert "'stoker'" in sentence
            assert "stokerd worker" in sentence
            assert seconds < 5
        status, deleted = await console("DELETE", one)
        assert (status, deleted["success"]) == (202, True)
        assert (await console.good("GET", one))["result"]["endpoint_state"] == "deleting", (
            "nobody has read it yet"
        )
        status, problem = await console("POST", "/route/", {"endpoint": "nobody-polls"})
        assert (status, problem["error"]) == (404, "endpoint_deleted")
        await stage.close()
    await env.shutdown()


async def test_a_create_waits_for_the_end_of_a_deleted_endpoint_of_its_name(
    alice: Console, bob: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await alice.create("reborn", min_load=0, min_workers=0)
    await alice.good("DELETE", f"/api/v0/endptjobs/{first}/")
    listed = (await alice.good("GET", "/api/v0/endptjobs/"))["results"]
    assert [row["endpoint_state"] for row in listed if row["id"] == first] == ["deleting"]
    status, problem = await bob("POST", "/api/v0/endptjobs/", {"endpoint_name": "reborn"})
    assert (status, problem["error"]) == (400, "endpoint_exists"), (
        "the problem does not mention another account's endpoint"
    )

    with monkeypatch.context() as impatient:
        impatient.setattr("engine.console.endpoints._DELETION_SECONDS_MAX", 0.0)
        status, problem = await alice("POST", "/api/v0/endptjobs/", {"endpoint_name": "reborn"})
    assert (status, problem["error"]) == (503, "endpoint_deleting")
    assert "it ends" in problem["msg"]

    monkeypatch.setattr("engine.console.endpoints._DELETION_SECONDS_MAX", 60.0)
    assert await alice.create("reborn", max_workers=1) != first


async def test_a_deleted_endpoint_takes_no_requests_and_its_name_is_free_again(
    alice: Console, real_stage: Stage
) -> None:
    endpoint_id = await alice.create("deleted", min_load=0, min_workers=0)

    async def settled() -> bool:
        status = await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/status/")
        return status["listed_at"] > 0 and not status["under_way"]

    await until(settled, "the workflow has made its first look")
    answered = await alice.good("DELETE", f"/api/v0/endptjobs/{endpoint_id}/", {"client_id": "me"})
    assert answered["success"] is True

    status, problem = await alice("POST", "/route/", {"endpoint": "deleted"})
    assert (status, problem["error"]) in {(404, "endpoint_deleted"), (404, "no_such_endpoint")}

    directory = real_stage.server.engine.directory
    await until(lambda: directory.named("deleted") is None, "the workflow ends", seconds=60)
    assert await alice.create("deleted", max_workers=1) != endpoint_id


async def test_an_account_sees_and_uses_only_its_own_endpoints(alice: Console, bob: Console) -> None:
    endpoint_id = await alice.create("mine", min_load=0)
    body = {"endpoint_id": endpoint_id, "template_hash": "tmpl", "search_params": ""}
    group_id = (await alice.good("POST", "/api/v0/workergroups/", body))["id"]

    assert endpoint_id not in [row["id"] for row in (await bob.good("GET", "/api/v0/endptjobs/"))["results"]]
    assert (await bob.good("GET", "/api/v0/autojobs/"))["results"] == []
    for method, path, sent in [
        ("GET", f"/api/v0/endptjobs/{endpoint_id}/", None),
        ("PUT", f"/api/v0/endptjobs/{endpoint_id}/", {"max_workers": 1}),
        ("DELETE", f"/api/v0/endptjobs/{endpoint_id}/", {}),
        ("POST", f"/api/v0/endptjobs/{endpoint_id}/rotate_key/", {}),
        ("GET", f"/api/v0/endptjobs/{endpoint_id}/status/", None),
        ("GET", f"/api/v0/endptjobs/{endpoint_id}/costs/", None),
        ("PUT", f"/api/v0/autojobs/{group_id}/", {"gpu_ram": 1}),
        ("DELETE", f"/api/v0/autojobs/{group_id}/", {}),
        ("POST", "/api/v0/autojobs/", body),
        ("POST", "/get_endpoint_workers/", {"id": endpoint_id}),
        ("POST", "/get_endpoint_logs/", {"id": endpoint_id}),
        ("POST", "/get_autogroup_logs/", {"id": group_id}),
        ("POST", "/update_workers/", {"workergroup_id": group_id}),
        ("POST", "/change_worker/", {"id": endpoint_id, "worker": 1, "action": "destroy"}),
        ("POST", "/route/", {"endpoint": "mine"}),
    ]:
        status, problem = await bob(method, path, sent)
        # The official client reads a list of no workers from a 200 without success.
        expected = 200 if path == "/get_endpoint_workers/" else 404
        assert status == expected, (method, path, status, problem)
        assert (problem["success"], problem["error_msg"] != "") == (False, True)


async def test_a_workergroup_is_created_changed_listed_and_deleted_under_both_names(alice: Console) -> None:
    endpoint_id = await alice.create("grouped", min_load=0, min_workers=0)
    query = "gpu_name=RTX_4090 verified=True rentable=True rented=False"
    body = {"endpoint_name": "grouped", "template_hash": "tmpl", "search_params": query, "launch_args": None}

    group_id = (await alice.good("POST", "/api/v0/autojobs/", body | {"client_id": "me", "gpu_ram": 8}))["id"]

    for base in ("workergroups", "autojobs"):
        rows = (await alice.good("GET", f"/api/v0/{base}/"))["results"]
        row = next(row for row in rows if row["id"] == group_id)
        assert (row["endpoint_id"], row["endpoint_name"]) == (endpoint_id, "grouped")
        assert (row["search_params"], row["gpu_ram"]) == (query, 8.0)
    change = {"search_params": "gpu_name=RTX_4090", "template_id": 7, "cold_workers": None}
    await alice.good("PUT", f"/api/v0/workergroups/{group_id}/", change)
    row = (await alice.good("GET", f"/api/v0/workergroups/{group_id}/"))["result"]
    assert (row["template_hash"], row["template_id"], row["gpu_ram"], row["revision"]) == (None, 7, 8.0, 2)
    assert await alice.good("DELETE", f"/api/v0/autojobs/{group_id}/", {}) == {"success": True}
    assert (await alice("GET", f"/api/v0/workergroups/{group_id}/"))[0] == 404


async def test_workers_logs_status_and_costs_show_a_fleet_during_recruiting(alice: Console) -> None:
    endpoint_id = await alice.create("recruiting", min_load=1, min_workers=1, max_workers=2)
    body = {"endpoint_id": endpoint_id, "template_hash": "tmpl", "search_params": ""}
    group_id = (await alice.good("POST", "/api/v0/workergroups/", body))["id"]

    async def rows() -> Any:
        return await alice.good("POST", "/get_endpoint_workers/", {"id": endpoint_id})

    row = (await until(rows, "a worker is recruited"))[0]
    assert isinstance(row["id"], int)
    assert row["workergroup_id"] == group_id
    numbers = ["cur_load", "new_load", "cur_load_rolling_avg", "cur_perf", "perf", "measured_perf", "dlperf"]
    numbers += ["reliability", "disk_usage", "loaded_at", "started_at", "reqs_working", "id"]
    assert [name for name in numbers if not isinstance(row[name], int | float)] == []
    assert [r["launch_id"] for r in await alice.good("POST", "/get_autogroup_workers/", {"id": group_id})]

    logs = await alice.good("POST", "/get_endpoint_logs/", {"id": endpoint_id, "tail": 50})
    assert set(logs) == {"info0", "info1", "trace", "debug"}
    assert "recruit" in logs["debug"]
    assert len(logs["debug"]) >= len(logs["info0"])
    of_group = await alice.good("POST", "/get_workergroup_logs/", {"id": group_id})
    assert set(of_group) == {"info0", "info1", "trace", "debug"}

    status = await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/status/")
    assert (status["name"], sum(status["workers"].values()) > 0) == ("recruiting", True)
    decisions = await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/decisions/?tail=5")
    assert 1 <= len(decisions["decisions"]) <= 5
    assert "dollars_per_hour" in await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/costs/")
    change = {"id": endpoint_id, "worker": row["launch_id"][:6], "action": "destroy"}
    asked = await alice.good("POST", "/change_worker/", change)
    assert asked == {"success": True, "launch_id": row["launch_id"], "action": "destroy"}
    assert (await alice("POST", "/change_worker/", change | {"worker": "f" * 12}))[0] == 404
    updated = await alice.good("POST", "/update_workers/", {"workergroup_id": group_id})
    assert updated["success"] is True
    assert updated["workers_to_update"] >= 1
    cancelled = await alice.good(
        "POST", "/update_workers/", {"workergroup_id": group_id, "cancel_update": True}
    )
    assert cancelled == {"success": True, "cancelled": True}


async def test_a_second_config_is_advised_shown_and_stopped(alice: Console, bob: Console) -> None:
    endpoint_id = await alice.create("advised", min_load=0, min_workers=0, target_util=0.9)
    path = f"/api/v0/endptjobs/{endpoint_id}/advice/"
    assert (await alice.good("GET", path))["advice"]["active"] is False
    assert await alice.good("PUT", path, {"target_util": 0.5, "error_budget": 0.02, "min_load": None}) == {
        "success": True
    }
    advice = (await alice.good("GET", path))["advice"]
    assert (advice["active"], advice["config"]) == (True, {"target_util": 0.5, "error_budget": 0.02})
    assert {"live", "live_imagined", "advised", "summary"} <= advice.keys()
    live = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]
    assert live["target_util"] == 0.9
    for method in ("GET", "PUT", "DELETE"):
        assert (await bob(method, path, None if method == "GET" else {"target_util": 0.1}))[0] == 404
    assert await alice.good("DELETE", path, {}) == {"success": True}
    assert (await alice.good("GET", path))["advice"]["active"] is False


async def test_hosts_are_listed_and_unblocked_by_their_owner(alice: Console, bob: Console) -> None:
    endpoint_id = await alice.create("hosts", min_load=0, min_workers=0)
    path = f"/api/v0/endptjobs/{endpoint_id}/hosts/"
    assert (await alice.good("GET", path))["hosts"] == {"blocked": [], "not_to_blame": [], "paused": []}
    for body in ({}, {"machine_ids": None}, {"machine_ids": [17]}):
        answered = await alice.good("POST", path + "unblock/", body)
        assert answered == {"success": True, "unblocked": []}
    assert (await bob("GET", path, None))[0] == 404
    assert (await bob("POST", path + "unblock/", {}))[0] == 404


async def test_a_request_recruits_a_worker_and_is_answered_when_the_worker_is_ready(
    alice: Console, real_stage: Stage
) -> None:
    """The whole path: request without workers, signal, plan, instance, report, route, state in the workflow."""
    endpoint_id = await alice.create("whole-way", min_load=0, min_workers=0, max_workers=1)
    body = {"endpoint_id": endpoint_id, "template_hash": "tmpl", "search_params": ""}
    await alice.good("POST", "/api/v0/workergroups/", body)
    key = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]["api_key"]
    asked = {"endpoint": "whole-way", "cost": 10}
    request = asyncio.ensure_future(real_stage.post("/route/", asked, key=key))

    async def rented() -> Any:
        rows = await alice.good("POST", "/get_endpoint_workers/", {"id": endpoint_id})
        return [row for row in rows if row["id"]]

    row = (await until(rented, "an instance is rented"))[0]
    worker = WorkerDouble(real_stage, endpoint_id, row["launch_id"], row["id"])
    await worker.report()

    status, route = await request
    assert (status, route["url"], route["worker_id"]) == (200, worker.url, row["id"])

    async def idle() -> bool:
        return [row["status"] for row in await rented()] == ["idle"]

    await until(idle, "the workflow has taken the worker for ready")


async def test_after_a_rotation_only_the_new_key_is_accepted(alice: Console, real_stage: Stage) -> None:
    endpoint_id = await alice.create("rotated", min_load=0, min_workers=0)
    old = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]["api_key"]
    answered = await alice.good("POST", f"/api/v0/endptjobs/{endpoint_id}/rotate_key/", {})
    assert answered["api_key"] != old

    asked = {"endpoint": "rotated", "request_idx": 5, "replay_timeout": 0}
    real_stage.server.engine.stop_holding()  # so that Waiting is returned at once
    assert (await real_stage.post("/route/", asked, key=answered["api_key"]))[0] == 200
    assert (await real_stage.post("/route/", asked, key=old))[0] == 401


async def test_the_current_user_is_the_account_of_the_key(alice: Console, real_stage: Stage) -> None:
    user = await alice.good("GET", "/api/v0/users/current")
    assert user["username"] == "alice"
    assert (await real_stage.call("GET", f"/api/v0/users/current?api_key={BOB}"))[1]["username"] == "bob"
    status, problem = await real_stage.call("GET", "/api/v0/users/current")
    assert (status, problem["error"]) == (401, "auth_error")
    assert "msg" in problem


BAD_CALLS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "bad/name"}, 400, "endpoint_name"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": 5}, 400, "endpoint_name"),
    ("POST", "/api/v0/endptjobs/", {}, 400, "endpoint_name"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "a", "target_util": 1.1}, 400, "target_util"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "a", "max_workers": -1}, 400, "max_workers"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "a", "cold_mult": 0.5}, 400, "cold_mult"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "a", "max_wrokers": 1}, 400, "max_wrokers"),
    ("POST", "/api/v0/endptjobs/", {"endpoint_name": "a", "endpoint_state": "off"}, 400, "endpoint_state"),
    ("POST", "/api/v0/endptjobs/", b"{", 400, "JSON"),
    ("POST", "/api/v0/endptjobs/", b"[]", 400, "list"),
    ("POST", "/api/v0/endptjobs/", b"\xff\xfe", 400, "JSON"),
    ("POST", "/api/v0/endptjobs/", b" " * 1_048_577, 413, "larger"),
    ("PUT", "/api/v0/endptjobs/{id}/", {"max_workers": 20_000}, 400, "max_workers"),
    ("PUT", "/api/v0/endptjobs/{id}/", {"endpoint_name": "other"}, 400, "renamed"),
    ("POST", "/api/v0/endptjobs/{id}/hosts/unblock/", {"machine_ids": 17}, 400, "must be a list"),
    ("POST", "/api/v0/endptjobs/{id}/hosts/unblock/", {"machine_ids": ["17"]}, 400, "whole numbers"),
    ("POST", "/api/v0/endptjobs/{id}/hosts/unblock/", {"machine_ids": [0]}, 400, "whole numbers"),
    ("PUT", "/api/v0/endptjobs/{id}/advice/", {}, 400, "nothing differs from the live config"),
    ("PUT", "/api/v0/endptjobs/{id}/advice/", {"target_util": 7}, 400, "target_util"),
    ("PUT", "/api/v0/endptjobs/{id}/advice/", {"error_budget": 2, "min_load": 1}, 400, "error_budget"),
    ("PUT", "/api/v0/endptjobs/x/", {"max_workers": 2}, 400, "integer"),
    ("GET", "/api/v0/endptjobs/2147483647/", None, 404, "no endpoint"),
    ("GET", "/api/v0/endptjobs/{id}/decisions/?tail=x", None, 400, "tail"),
    ("POST", "/api/v0/autojobs/", {"template_hash": "t"}, 400, "endpoint_id"),
    ("POST", "/api/v0/autojobs/", {"endpoint_id": "{id}"}, 400, "template"),
    ("POST", "/api/v0/autojobs/", {"endpoint_name": "nobody", "template_hash": "t"}, 404, "nobody"),
    ("POST", "/api/v0/autojobs/", {"endpoint_id": "{id}", "template_hash": "t", "gpu": 1}, 400, "gpu"),
    (
        "POST",
        "/api/v0/autojobs/",
        {"endpoint_id": "{id}", "template_hash": "t", "search_params": "gpu_name !! 3"},
        400,
        "search_params",
    ),
    (
        "POST",
        "/api/v0/autojobs/",
        {"endpoint_id": "{id}", "template_hash": "t", "docker_login_pass": "x"},
        400,
        "docker_login_pass",
    ),
    ("POST", "/get_endpoint_workers/", {"id": None}, 400, "id"),
    ("POST", "/get_endpoint_logs/", {"id": "{id}", "tail": -1}, 400, "tail"),
    ("POST", "/update_workers/", {"workergroup_id": "x"}, 400, "workergroup_id"),
    ("POST", "/change_worker/", {"id": "{id}", "worker": 5, "action": "explode"}, 400, "drain, resume"),
    ("POST", "/change_worker/", {"id": "{id}", "worker": 5, "action": "drain"}, 404, "no worker 5"),
    ("POST", "/change_worker/", {"id": "{id}", "action": "drain"}, 404, "no worker None"),
    ("GET", "/no/such/path/", None, 404, "path"),
    ("PATCH", "/api/v0/endptjobs/", {}, 405, "method"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "word"), BAD_CALLS)
async def test_an_invalid_call_is_a_problem_that_says_what_to_do(
    alice: Console, method: str, path: str, body: Any, status: int, word: str
) -> None:
    endpoint_id = await alice.create("for-bad-calls", min_load=0, min_workers=0)
    if isinstance(body, dict):
        body = {key: endpoint_id if value == "{id}" else value for key, value in body.items()}
    before = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]

    got, problem = await alice(method, path.replace("{id}", str(endpoint_id)), body)

    assert got == status, problem
    assert problem["success"] is False
    assert word in problem["msg"]
    assert problem["msg"] == problem["error_msg"]
    after = (await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/"))["result"]
    assert after == before


async def test_memos_of_an_endpoint_created_with_a_fast_clock_are_applied(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 120.0, monotonic=time.monotonic)
    monkeypatch.setattr("engine.console.endpoint_workflows.time", ahead)
    name = "made-ahead"
    _, body = await stage.post("/api/v0/endptjobs/", {"endpoint_name": name}, key=ALICE)
    handle = stage.env.client.get_workflow_handle(workflow_id(name))
    try:
        worker = WorkerDouble(stage, body["result"], "aaaaaaaaaaaa", 101)
        await handle.signal("script", {"groups": [1], "members": [worker.member()]})
        directory = stage.server.engine.directory
        await until(lambda: bool(directory.named(name).memo.members), "the workflow's own word counts")
    finally:
        await handle.terminate()
