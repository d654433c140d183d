"""Endpoints directly on Temporal: a real dev server, the real endpoint workflow, a fake marketplace."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

import stoker
from stoker.control import Control
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import SEARCH_ATTRIBUTES
from stoker_wire.workergroup import Workergroup
from tests.workflows.world import make_market, make_workers

_KEYS = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Int": SearchAttributeKey.for_int,
    "Double": SearchAttributeKey.for_float,
    "Datetime": SearchAttributeKey.for_datetime,
}
EMPTY = EndpointConfig(min_workers=0, min_load=0)


@pytest.fixture
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal dev server, in memory, on a free port."""
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        search_attributes=[_KEYS[kind](name) for name, kind in SEARCH_ATTRIBUTES.items()],
        data_converter=pydantic_data_converter,
    )
    async with env:
        yield env


@pytest.fixture
async def workers(server) -> AsyncIterator[None]:
    """The deployment's Temporal workers with a fake marketplace."""
    async with AsyncExitStack() as stack:
        for worker in make_workers(
            server.client, make_market(time.time, pull_seconds=0.0, start_seconds=0.0)
        ):
            await stack.enter_async_context(worker)
        yield


@pytest.fixture
async def control(server) -> Control:
    config = server.client.service_client.config
    return await Control.connect(address=config.target_host, namespace=server.client.namespace)


async def test_an_endpoint_lives_from_start_to_deletion(control, workers):
    spec = await control.create_endpoint("llm", EMPTY)
    assert 1 <= spec.endpoint_id < 2**31
    assert spec.created_at > 0
    status = await control.status("llm")
    assert (status["name"], status["id"], status["state"]) == ("llm", spec.endpoint_id, "active")

    changed = await control.update_config("llm", max_workers=3, cold_workers=0)
    assert (changed["max_workers"], changed["min_workers"]) == (3, 0)

    stored = await control.set_workergroup("llm", Workergroup(id=5, template_hash="tmpl"))
    assert stored["id"] == 5
    await control.set_workergroup("llm", Workergroup(id=6, template_hash="tmpl", max_workers=1))
    assert [group["id"] for group in await control.workergroups("llm")] == [5, 6]
    await control.update_workers("llm", 5)
    await control.cancel_update("llm", 5)
    with pytest.raises(stoker.Refused, match="no workergroup 9"):
        await control.update_workers("llm", 9)
    await control.remove_workergroup("llm", 5)
    await control.remove_workergroup("llm", 6)
    assert await control.workergroups("llm") == []

    assert await control.rotate_key("llm") == 2
    key = await control.create_key("llm", "app", load_per_second=10, priority="low")
    assert key.startswith("sk-ep-")
    await control.update_key("llm", "app", load_per_second=None, dollars_per_day=2.5)
    with pytest.raises(stoker.Refused, match="already"):
        await control.create_key("llm", "app")
    with pytest.raises(stoker.Invalid, match="load_per_second"):
        await control.create_key("llm", "another", load_per_second=float("nan"))
    await control.revoke_key("llm", "app")
    with pytest.raises(stoker.Refused, match="no key named 'app'"):
        await control.revoke_key("llm", "app")
    assert await control.workers("llm") == []
    decisions = await control.decisions("llm", tail=3)
    assert 0 < len(decisions) <= 3
    assert all(line["reason"] for line in decisions)
    assert (await control.costs("llm"))["dollars"] == 0
    await control.advise("llm", target_util=0.5, error_budget=0.001)
    advice = await control.advice("llm")
    assert (advice["active"], advice["config"]) == (True, {"target_util": 0.5, "error_budget": 0.001})
    await control.stop_advice("llm")
    assert (await control.advice("llm"))["active"] is False
    with pytest.raises(stoker.Invalid, match="nothing differs"):
        await control.advise("llm")

    left = await control.delete("llm", wait_seconds=60)
    assert (left["endpoint_name"], left["workers_rented"]) == ("llm", 0)
    with pytest.raises(stoker.EndpointNotFound, match="llm"):
        await control.update_config("llm", max_workers=1)


async def test_search_attributes_are_set_at_the_start(control, server):
    spec = await control.create_endpoint(EndpointSpec(endpoint_name="llm", endpoint_id=77, config=EMPTY))
    described = await server.client.get_workflow_handle("endpoint/llm").describe()
    found = {pair.key.name: pair.value for pair in described.typed_search_attributes.search_attributes}
    assert found["EndpointName"] == "llm"
    assert found["EndpointId"] == spec.endpoint_id == 77
    assert found["EndpointState"] == "active"


async def test_the_name_of_a_live_endpoint_is_taken(control):
    await control.create_endpoint("llm", EMPTY)
    with pytest.raises(stoker.Refused, match="there is a live endpoint 'llm'") as caught:
        await control.create_endpoint("llm", EMPTY)
    assert caught.value.code == "name_taken"


async def test_create_waits_for_the_end_of_a_deletion(control, workers):
    first = await control.create_endpoint("llm", EMPTY)
    await control.delete("llm")
    with pytest.raises(stoker.Refused, match="still being deleted after 0.1 s") as caught:
        await control.create_endpoint("llm", EMPTY, deletion_seconds_max=0.1)
    assert caught.value.code == "endpoint_deleting"
    second = await control.create_endpoint("llm", EMPTY)
    status = await control.status("llm")
    assert (status["id"], status["state"]) == (second.endpoint_id, "active")
    assert second.endpoint_id != first.endpoint_id


async def test_a_refusal_of_the_workflow_is_raised_with_its_sentence(control, workers):
    await control.create_endpoint("llm", EMPTY)
    with pytest.raises(stoker.Refused, match="no workergroup 9") as caught:
        await control.remove_workergroup("llm", 9)
    assert caught.value.code == "no_such_workergroup"


async def test_values_out_of_bounds_are_refused_before_the_call(control):
    with pytest.raises(stoker.Invalid, match="endpoint_name"):
        await control.create_endpoint("a/name", EMPTY)
    with pytest.raises(stoker.Invalid, match="target_util"):
        await control.update_config("llm", target_util=2)
    with pytest.raises(stoker.Invalid, match="max_worker"):
        await control.update_config("llm", max_worker=2)
    with pytest.raises(stoker.Invalid, match="nothing to change"):
        await control.update_config("llm")


async def test_an_unknown_endpoint_is_an_error_with_its_name(control):
    for ask in (control.status, control.costs, control.workers):
        with pytest.raises(stoker.EndpointNotFound, match="nope"):
            await ask("nope")
    with pytest.raises(stoker.EndpointNotFound, match="nope"):
        await control.delete("nope")


async def test_a_delete_needs_no_worker_and_an_unanswered_query_names_the_missing_worker(server, control):
    impatient = Control(server.client, call_seconds_max=0.5)
    await control.create_endpoint("llm", EMPTY)
    with pytest.raises(stoker.TemporalUnavailable, match="stokerd worker"):
        await impatient.status("llm")
    with pytest.raises(stoker.TemporalUnavailable, match="stokerd worker"):
        await impatient.update_config("llm", max_workers=4)
    await control.delete("llm")
    with pytest.raises(stoker.RequestTimedOut, match="still being destroyed"):
        await control.delete("llm", wait_seconds=0.2)


async def test_live_endpoints_are_listed(control):
    await control.create_endpoint("llm", EMPTY)
    await control.create_endpoint("img", EMPTY)
    names: list[str] = []
    while len(names) < 2:  # visibility lags a few milliseconds; the test's timeout bounds the loop
        names = await control.list_endpoints()
    assert names == ["img", "llm"]


async def test_an_address_without_a_server_is_named(tmp_path, monkeypatch):
    with pytest.raises(stoker.TemporalUnavailable, match=r"127\.0\.0\.1:1"):
        await Control.connect(address="127.0.0.1:1")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:2")
    with pytest.raises(stoker.TemporalUnavailable, match=r"127\.0\.0\.1:2"):
        await Control.connect()
    profiles = tmp_path / "temporal.toml"
    profiles.write_text('[profile.staging]\naddress = "127.0.0.1:3"\n')
    monkeypatch.delenv("TEMPORAL_ADDRESS")
    with pytest.raises(stoker.TemporalUnavailable, match=r"127\.0\.0\.1:3"):
        await Control.connect(profile="staging", config_file=str(profiles))
    with pytest.raises(stoker.Invalid, match="Temporal's settings"):
        await Control.connect(profile="nope", config_file=str(profiles))


async def test_the_example_runs_unchanged(control, server, workers):
    example = Path(__file__).parents[2] / "examples" / "client" / "on_temporal.py"
    environ = os.environ | {
        "TEMPORAL_ADDRESS": server.client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": server.client.namespace,
        "TEMPLATE_HASH": "tmpl",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(example),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")
    assert "'target_util': 0.8" in out.decode()
    assert (await control.status("my-endpoint"))["config"]["dollars_per_hour_max"] == 2.0
