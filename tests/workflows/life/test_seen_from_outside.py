"""What engines, lists and people see of an endpoint, on a real Temporal server."""

import asyncio
import contextlib
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from stoker_wire.control import TASK_QUEUE, WORKFLOW_TYPE, workflow_id
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MEMO_KEY, EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group, make_workers

ONE = EndpointConfig(min_load=10, min_workers=1, max_workers=1, cold_mult=1)


async def lived_until_ready(world: World) -> EndpointMemo:
    found: list[EndpointMemo] = []

    def ready(memo: EndpointMemo) -> bool:
        found.append(memo)
        return any(member.s is S.READY for member in memo.members)

    assert await world.live(30, step=0.1, load=5, until=ready, heartbeat=0.2)
    return found[-1]


async def test_a_list_finds_endpoints_with_their_memo_and_attributes(real_world: Any) -> None:
    async with real_world() as world:
        await world.start(ONE, [group(test_workers=0)])
        await lived_until_ready(world)
        query = f"WorkflowType = '{WORKFLOW_TYPE}' AND ReadyWorkers = 1 AND EndpointState = 'active'"
        found = []
        async with asyncio.timeout(20):
            while not found:
                found = [listed async for listed in world.client.list_workflows(query)]
        memo = EndpointMemo.model_validate((await found[0].memo())[MEMO_KEY])
        member = memo.members[0]
        assert (memo.name, memo.id, memo.groups) == ("llm", 1, (1,))
        assert (member.s, member.p, member.k) == (S.READY, 60.0, "1x RTX 3090")
        assert member.u.startswith("http://10.0.0.")
        attributes = {pair.key.name: pair.value for pair in found[0].typed_search_attributes}
        assert attributes["EndpointName"] == "llm"
        assert attributes["DollarsPerHour"] == pytest.approx(0.2)
        assert attributes["FleetChangedAt"].timestamp() == pytest.approx(memo.changed_at)


async def test_the_details_tell_an_operator_what_it_does_and_why(real_world: Any) -> None:
    async with real_world() as world:
        await world.start(ONE, [group(test_workers=0)])
        memo = await lived_until_ready(world)
        details = await world.handle.query("__temporal_workflow_metadata")
        text = details["currentDetails"] if isinstance(details, dict) else details.current_details
        assert "# llm is active" in text
        assert f"| {memo.members[0].l}" in text
        assert "IDLE" in text
        assert "**recruit**" in text
        assert "min_load" in text or "wanted" in text, "and why"


async def test_activities_carry_a_summary(real_world: Any) -> None:
    async with real_world() as world:
        await world.start(ONE, [group(test_workers=0)])
        await lived_until_ready(world)
        summaries = [
            event.user_metadata.summary.data.decode()
            async for event in world.handle.fetch_history_events()
            if event.HasField("activity_task_scheduled_event_attributes")
        ]
        assert any("create 1x RTX 3090, offer 100, $0.20/h" in summary for summary in summaries)


async def test_a_spec_that_cannot_be_used_fails_at_once_and_says_why(real_world: Any) -> None:
    async with real_world() as world:
        handle = await world.client.start_workflow(
            WORKFLOW_TYPE,
            {"endpoint_name": "llm", "endpoint_id": 1, "config": {"max_workers": -1}},
            id=workflow_id("llm"),
            task_queue=TASK_QUEUE,
        )
        with pytest.raises(WorkflowFailureError) as failed:
            async with asyncio.timeout(20):
                await handle.result()
        cause = failed.value.cause
        assert isinstance(cause, ApplicationError)
        assert "max_workers" in cause.message


async def test_a_worker_that_restarts_goes_on_where_it_was(real_world: Any, server: Any) -> None:
    async with real_world() as world:
        await world.start(ONE, [group(test_workers=0)])
        before = await lived_until_ready(world)
    async with contextlib.AsyncExitStack() as stack:
        for worker in make_workers(server.client, world.market):
            await stack.enter_async_context(worker)
        workers = await world.handle.query("workers")
        assert [worker["launch_id"] for worker in workers] == [member.l for member in before.members]
        await world.handle.signal("delete")
        await world.live_on_until_gone(60, step=0.2)
        assert world.market.instances == {}
