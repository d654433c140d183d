"""Named keys through the console API with the real workflow."""

import json
from typing import Any

import pytest

from stoker_wire.control import workflow_id
from stoker_wire.security.token import client_key_digest
from tests.engine.conftest import Stage
from tests.engine.test_console import Console, alice, bob, real_stage, real_temporal  # noqa: F401


async def created(console: Console, name: str) -> tuple[int, str]:
    number = (await console.good("POST", "/api/v0/endptjobs/", {"endpoint_name": name}))["result"]
    return number, f"/api/v0/endptjobs/{number}/keys/"


async def opens(stage: Stage, endpoint: str, key: str) -> int:
    return (await stage.call("GET", f"/openai/{endpoint}/v1/models", key=key))[0]


async def test_a_key_is_created_used_changed_listed_and_revoked(
    alice: Console,  # noqa: F811
    real_stage: Stage,  # noqa: F811
) -> None:
    number, keys = await created(alice, "keyed")
    limits = {"load_per_second": 1, "dollars_per_day": 2.5, "priority": "high"}
    made = await alice.good("POST", keys, {"name": "an app@home"} | limits)
    key = made["api_key"]
    assert made["name"] == "an app@home"
    assert key.startswith(f"sk-ep-{number}-")
    (row,) = (await alice.good("GET", keys))["keys"]
    assert row == {"name": "an app@home", "dollars_today": 0.0, "created_at": row["created_at"]} | limits
    assert await opens(real_stage, "keyed", key) == 200
    await alice.good("PUT", keys + "an%20app@home/", {"load_per_second": None, "priority": "low"})
    (row,) = (await alice.good("GET", keys))["keys"]
    assert (row["load_per_second"], row["dollars_per_day"], row["priority"]) == (None, 2.5, "low")
    assert await opens(real_stage, "keyed", key) == 200
    await alice.good("DELETE", keys + "an%20app@home/")
    assert await opens(real_stage, "keyed", key) == 401
    assert (await alice.good("GET", keys))["keys"] == []
    assert (await alice("DELETE", keys + "an%20app@home/"))[0] == 404


async def test_temporal_never_sees_the_text_of_a_key(alice: Console, real_stage: Stage) -> None:  # noqa: F811
    _, keys = await created(alice, "secretive")
    key = (await alice.good("POST", keys, {"name": "app"}))["api_key"]
    handle = real_stage.env.client.get_workflow_handle(workflow_id("secretive"))
    history = (await handle.fetch_history()).to_json()
    memo = json.dumps(await (await handle.describe()).memo())
    decisions = json.dumps((await alice.good("GET", keys.removesuffix("keys/") + "decisions/"))["decisions"])
    assert client_key_digest(key) in memo
    for text in (history, memo, decisions):
        assert key.rpartition("-")[2] not in text
    assert "key 'app' created: priority normal" in decisions


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "a\x1b[31mb"}, "name"),
    ({"name": "a/../b"}, "name"),
    ({"name": " a"}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": ["a"]}, "name"),
    ({"name": "a", "load_per_second": -1}, "load_per_second"),
    ({"name": "a", "load_per_second": 0}, "load_per_second"),
    ({"name": "a", "load_per_second": "NaN"}, "load_per_second"),
    ({"name": "a", "load_per_second": 1e300}, "load_per_second"),
    ({"name": "a", "dollars_per_day": -0.5}, "dollars_per_day"),
    ({"name": "a", "priority": "urgent"}, "priority"),
    ({"name": "a", "load": 5}, "load"),
    ({"name": "a", "digest": "0" * 64}, "digest"),
]


async def test_a_key_that_makes_no_sense_is_refused_by_field(alice: Console) -> None:  # noqa: F811
    _, keys = await created(alice, "strict")
    for body, field in BAD:
        status, problem = await alice("POST", keys, body)
        assert status == 400, body
        assert field in problem["msg"], (body, problem)
    await alice.good("POST", keys, {"name": "app"})
    status, problem = await alice("POST", keys, {"name": "app"})
    assert (status, "already" in problem["msg"]) == (400, True)
    assert (await alice("PUT", keys + "app/", {}))[0] == 400
    assert (await alice("PUT", keys + "other/", {"load_per_second": 1}))[0] == 404


async def test_keys_belong_to_the_account_of_the_endpoint(
    alice: Console,  # noqa: F811
    bob: Console,  # noqa: F811
) -> None:
    _, keys = await created(alice, "owned")
    key = (await alice.good("POST", keys, {"name": "app"}))["api_key"]
    for method, path, body in (
        ("GET", keys, None),
        ("POST", keys, {"name": "mine"}),
        ("PUT", keys + "app/", {"load_per_second": 1}),
        ("DELETE", keys + "app/", None),
    ):
        assert (await bob(method, path, body))[0] == 404
        assert (await Console(alice.stage, key)(method, path, body))[0] == 401
    assert [row["name"] for row in (await alice.good("GET", keys))["keys"]] == ["app"]


@pytest.mark.parametrize("name", ["keys", "0"])
async def test_a_name_may_look_like_a_path(alice: Console, name: str) -> None:  # noqa: F811
    _, keys = await created(alice, f"named-{name}")
    await alice.good("POST", keys, {"name": name})
    await alice.good("DELETE", f"{keys}{name}/")
