"""Instances that the endpoint knows stay known: a list that lacks them, or an edited label, decides nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from market.fake import FakeInstance
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group

ONE_HOT = EndpointConfig(min_load=10, min_workers=2, max_workers=3, cold_mult=1)


def settled(memo: EndpointMemo) -> bool:
    loaded = [member.s for member in memo.members if member.s in {S.READY, S.INACTIVE}]
    return len(loaded) == 2 and S.READY in loaded


async def started(world: World) -> set[int]:
    """The ids of a loaded fleet."""
    await world.start(ONE_HOT, [group(test_workers=0)])
    assert await world.live(600, load=5, until=settled)
    return set(world.market.instances)


@pytest.mark.parametrize(
    "omits", [lambda _: True, lambda each: each.id % 2 == 0], ids=["an empty list", "a short list"]
)
async def test_a_list_that_lacks_workers_replaces_and_releases_nothing(
    a_world: Any, omits: Callable[[FakeInstance], bool]
) -> None:
    async with a_world() as world:
        ids = await started(world)
        world.market.omits = omits
        await world.live(2000, load=5)
        assert set(world.market.instances) == ids
        assert {member.i for member in (await world.memo()).members} == ids
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        assert any("that a query by id did not report as gone" in line for line in lines), "it is logged"
        assert not any("vanished" in line for line in lines)
        assert world.market.count("create") == len(ids)


async def test_workers_whose_labels_were_edited_serve_on_and_are_deleted_by_id(a_world: Any) -> None:
    async with a_world() as world:
        ids = await started(world)
        for number, instance_id in enumerate(sorted(ids)):
            world.market.edit_label(instance_id, ["do not touch", "stoker:other:0123456789ab"][number])
        await world.live(1500, load=5)
        assert set(world.market.instances) == ids
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        told = [line for line in lines if "was edited outside" in line]
        assert len(told) == len(ids), "once for each instance"
        await world.client.get_workflow_handle(world.handle.id).signal("delete")
        await world.live_on_until_gone()
        assert world.market.instances == {}


async def test_a_relabelled_worker_that_is_truly_gone_is_replaced(a_world: Any) -> None:
    async with a_world() as world:
        ids = await started(world)
        lost = min(ids)
        world.market.edit_label(lost, "mine")
        await world.live(300, load=5)
        world.market.vanish(lost)
        assert await world.live(1000, load=5, until=lambda memo: lost not in {m.i for m in memo.members})
        assert await world.live(900, load=5, until=settled)
