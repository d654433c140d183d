"""Named keys through the SDK and the CLI, and what a client does when its key's limit is reached."""

import pytest

import stoker as sdk
from tests.sdk.management.test_console_api import bodies
from tests.sdk.peers import json_reply, problem

KEYS = "/api/v0/endptjobs/7/keys/"
MADE = json_reply({"success": True, "name": "app", "api_key": "sk-ep-7-" + "a" * 40})
ROW = {"name": "app", "created_at": 1e9, "load_per_second": 5.0, "dollars_per_day": None, "priority": "low"}


async def test_a_key_is_created_with_its_limits_and_hidden_in_logs(peers, client):
    peers.console_replies["POST", KEYS] = MADE
    key = await client.keys.create("llm", "app", load_per_second=5, priority="low")
    assert bodies(peers, "POST", KEYS) == [{"name": "app", "load_per_second": 5.0, "priority": "low"}]
    assert key.get_secret_value().startswith("sk-ep-7-")
    assert "aaaa" not in repr(key)


@pytest.mark.parametrize(
    ("name", "limits", "says"),
    [
        ("a\nb", {}, "name"),
        ("x" * 65, {}, "name"),
        ("app", {"load_per_second": float("nan")}, "load_per_second"),
        ("app", {"dollars_per_day": -1}, "dollars_per_day"),
        ("app", {"priority": "urgent"}, "priority"),
        ("app", {"rate": 5}, "rate"),
    ],
)
async def test_a_key_out_of_bounds_is_not_sent(peers, client, name, limits, says):
    with pytest.raises(sdk.Invalid, match=says):
        await client.keys.create("llm", name, **limits)
    assert bodies(peers, "POST", KEYS) == []


async def test_keys_are_listed_changed_and_revoked(peers, client):
    ok = json_reply({"success": True})
    peers.console_replies["GET", KEYS] = json_reply({"success": True, "keys": [ROW]})
    peers.console_replies["PUT", KEYS + "my app/"] = peers.console_replies["DELETE", KEYS + "my app/"] = ok
    (row,) = await client.keys.list("llm")
    assert (row.name, row.load_per_second, row.priority) == ("app", 5.0, "low")
    await client.keys.update("llm", "my app", load_per_second=None, dollars_per_day=2)
    assert bodies(peers, "PUT", KEYS + "my app/") == [{"load_per_second": None, "dollars_per_day": 2.0}]
    with pytest.raises(sdk.Invalid, match="nothing to change"):
        await client.keys.update("llm", "my app")
    await client.keys.revoke("llm", "my app")
    assert len(bodies(peers, "DELETE", KEYS + "my app/")) == 1


async def test_a_request_waits_while_the_rate_of_its_key_is_used_up(peers, endpoint):
    limited = problem(429, "key_load_per_second", "the key 'app' is limited to 5 load/s")
    peers.route_replies += [limited, limited]
    waits = []
    answer = await endpoint.request("/x", {}, on_wait=waits.append)
    assert answer.status == 200
    assert [(wait.reason, "5 load/s" in wait.status) for wait in waits] == [("rate_limit", True)] * 2


async def test_a_used_up_budget_ends_the_request_at_once(peers, endpoint):
    peers.route_replies.append(problem(429, "key_dollars_per_day", "the key 'app' has used its 2 dollars"))
    with pytest.raises(sdk.Refused, match="2 dollars") as caught:
        await endpoint.request("/x", {})
    assert (caught.value.status, caught.value.code) == (429, "key_dollars_per_day")
    assert len(peers.route_calls) == 1
