"""A cancel request, as the Temporal UI sends it, deletes the endpoint; the workflow ends as cancelled after that."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import CancelledError

from market.interface import Unavailable
from stoker.control import Control
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.world import group, histories_of, replayer

SMALL = EndpointConfig(min_load=0, min_workers=2, max_workers=4, cold_mult=1)


def known(memo: EndpointMemo) -> bool:
    return len(memo.members) >= 2 and all(member.i for member in memo.members)


async def ends_as_cancelled(world: Any) -> None:
    while await status(world) is WorkflowExecutionStatus.RUNNING:
        await world.pass_time(5)
    with pytest.raises(WorkflowFailureError) as ended:
        await world.client.get_workflow_handle(world.handle.id).result()
    assert isinstance(ended.value.cause, CancelledError)
    assert world.market.instances == {}


async def status(world: Any) -> WorkflowExecutionStatus:
    return (await world.client.get_workflow_handle(world.handle.id).describe()).status


async def test_a_cancelled_endpoint_destroys_its_workers_confirms_and_ends_as_cancelled(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=known)
        await world.handle.cancel()
        await ends_as_cancelled(world)
        asked = [call.name for call in world.market.calls if call.name != "charges"]
        assert asked[-1] == "list", "the marketplace confirmed it"
        histories = await histories_of(world.client, world.handle.id)
        for history in histories:
            await replayer().replay_workflow(history)


async def test_a_cancelled_endpoint_does_not_end_while_the_marketplace_does_not_answer(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=known)
        world.market.fail_next("destroy", Unavailable("down"), times=14)
        await world.handle.cancel()
        await world.pass_time(20)
        assert await status(world) is WorkflowExecutionStatus.RUNNING
        assert world.market.instances
        lines = await world.handle.query("decisions", 150)
        assert any("cancel was requested" in line["reason"] for line in lines)
        assert (await world.memo()).deleting
        await ends_as_cancelled(world)


async def test_a_cancelled_endpoint_drains_the_worker_that_holds_a_request(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(600, load=20, until=lambda memo: any(m.s is S.READY for m in memo.members))
        await world.live(10, load=20)
        await world.handle.cancel()
        await asyncio.wait_for(world.live_on_until_gone(), 60)
        await ends_as_cancelled(world)
        lines = await world.client.get_workflow_handle(world.handle.id).query("decisions", 150)
        kinds = [line["kind"] for line in lines]
        assert "drain" in kinds, "the request that it held was not cut off"
        assert kinds.index("drain") < kinds.index("destroy")


async def test_a_delete_that_is_waited_for_ends_with_the_cancelled_workflow(real_world: Any) -> None:
    async with real_world() as world:
        await world.start(SMALL, [group()])
        handle = world.client.get_workflow_handle(world.handle.id)
        while len(world.market.instances) < 2:
            await asyncio.sleep(0.05)
        await handle.cancel()
        assert await Control(world.client).delete("llm", wait_seconds=60) == {}
        assert world.market.instances == {}


async def test_a_second_cancel_changes_nothing(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=known)
        world.market.fail_next("destroy", Unavailable("down"), times=8)
        for _ in range(3):
            await world.handle.cancel()
            await world.pass_time(1)
        await ends_as_cancelled(world)


async def test_a_cancel_of_an_endpoint_that_is_being_deleted_lets_the_deletion_finish(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=known)
        world.market.fail_next("destroy", Unavailable("down"), times=14)
        await world.handle.signal("delete")
        await world.pass_time(2)
        await world.handle.cancel()
        await world.handle.signal("delete")
        await ends_as_cancelled(world)


async def test_a_cancelled_run_does_not_continue_as_new(a_world: Any) -> None:
    """The next run would not know of the request, and would end as completed."""
    async with a_world() as world:
        await world.start(SMALL, [group()], history_events_max=100)
        assert await world.live(120, until=known)
        world.market.fail_next("destroy", Unavailable("down"), times=60)
        await world.handle.cancel()
        run_id = (await world.client.get_workflow_handle(world.handle.id).describe()).run_id
        for _ in range(60):
            await world.handle.signal("update_config", {"max_workers": 3})
            await world.pass_time(5)
        described = await world.client.get_workflow_handle(world.handle.id).describe()
        assert described.history_length > 150, "long enough to continue as new"
        assert described.run_id == run_id
        await ends_as_cancelled(world)


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.3])
async def test_a_cancel_amid_continue_as_new_reaches_the_endpoint(real_world: Any, after: float) -> None:
    """On the real server: before the old run ends, while it does, and as the first event of the new one."""
    async with real_world() as world:
        await world.start(SMALL, [group()], history_events_max=100)
        handle = world.client.get_workflow_handle(world.handle.id)
        while len(world.market.instances) < 2:
            await asyncio.sleep(0.05)
        while (await handle.describe()).history_length < 96:
            await handle.signal("update_config", {"max_workers": 3})
        for number in range(8):
            await handle.signal("update_config", {"max_workers": 3 + number % 2})
        await asyncio.sleep(after)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as ended:
            await asyncio.wait_for(handle.result(), 60)
        assert isinstance(ended.value.cause, CancelledError)
        assert world.market.instances == {}
