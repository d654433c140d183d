"""`stoker up` against a real engine and a real marketplace of this machine: created once, updated by a second run."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

import stoker
from stoker.preflight.sources import Model
from stoker.up.apply import apply_plan
from stoker.up.plan import Plan, make_plan
from stoker.up.request import UpRequest, find_preset
from tests.engine.conftest import ALICE, Stage
from tests.engine.test_console import real_temporal  # noqa: F401 - a fixture
from tests.engine.test_marketplace import MARKET_KEY, market_url  # noqa: F401 - a fixture
from tests.sdk.up.test_plan import LLAMA_8B


@pytest_asyncio.fixture(loop_scope="session")
async def client(real_temporal: WorkflowEnvironment, market_url: str) -> AsyncIterator[stoker.Serverless]:  # noqa: F811
    async with aiohttp.ClientSession() as http:
        stage = Stage(real_temporal, http)
        server = await stage.start_engine(market_url=market_url, market_key=MARKET_KEY)
        async with stoker.Serverless(ALICE, url=server.url) as made:
            yield made
        await stage.close()


async def plan_of(client: stoker.Serverless, name: str, model: Model = LLAMA_8B, **more) -> Plan:
    request = UpRequest(preset=find_preset("vllm"), endpoint=name, model=model.name, **more)
    return await make_plan(request, model, client.marketplace.offers)


async def test_a_second_run_changes_nothing_and_a_changed_model_updates_the_workergroup(client) -> None:
    limits = {"max_workers": 0, "min_workers": 0}
    plan = await plan_of(client, "served")
    assert plan.offers[0].gpu_name == "RTX 4090"
    first = await apply_plan(client, plan, limits)
    assert [action.split(" ")[:2] for action in first.actions] == [
        ["created", "template"],
        ["created", "endpoint"],
        ["created", "workergroup"],
    ]
    again = await apply_plan(client, await plan_of(client, "served"), limits)
    assert again.actions == ()
    assert again.workergroup_id == first.workergroup_id

    (old,) = await client.marketplace.templates(name="stoker up served")
    changed = await apply_plan(client, await plan_of(client, "served", context=16_384), limits)
    assert [action.split(" ")[:2] for action in changed.actions] == [
        ["created", "template"],
        ["changed", "search_params,"],
    ]
    (new,) = await client.marketplace.templates(name="stoker up served")
    assert new.hash_id != old.hash_id, "the older template is deleted when nothing uses it"
    (group,) = await client.workergroups.list(endpoint="served")
    assert (group.id, group.template_hash) == (first.workergroup_id, new.hash_id)
    assert "MODEL_CONTEXT=16384" in (new.env or "")

    only_limits = await apply_plan(
        client, await plan_of(client, "served", context=16_384), limits | {"dollars_per_hour_max": 1.5}
    )
    assert only_limits.actions == ("changed dollars_per_hour_max of endpoint served",)


async def test_workergroups_that_it_did_not_create_are_left_alone(client) -> None:
    await client.endpoints.create("by-hand", max_workers=0)
    await client.workergroups.create("by-hand", template_hash="tmpl", search_params="")
    plan = await plan_of(client, "by-hand")
    with pytest.raises(stoker.errors.Invalid, match="give another --name"):
        await apply_plan(client, plan, {})
    assert await client.marketplace.templates(name="stoker up by-hand") == []
