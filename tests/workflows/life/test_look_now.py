"""The marketplace announces a change: the endpoint lists its instances at once and repairs what it finds."""

from typing import Any

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group

ONE = EndpointConfig(min_load=10, min_workers=1, max_workers=1)
WANTS = {"search_params": "gpu_name=RTX_4090", "test_workers": 0}


async def listed_at(world: World) -> float:
    assert world.handle is not None
    return float((await world.handle.query("status"))["listed_at"])


async def test_a_lost_instance_is_replaced_as_soon_as_the_marketplace_tells_of_a_change(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(ONE, [group(**WANTS)])
        assert await world.live(600, until=lambda memo: any(each.s is S.READY for each in memo.members))
        await world.live(130)
        (lost,) = (await world.memo()).members
        del world.market.instances[lost.i]  # a listing is due only every two minutes
        before = await listed_at(world)
        assert world.handle is not None
        await world.handle.signal("look_now")
        assert await world.live(30, until=lambda memo: all(each.l != lost.l for each in memo.members))
        assert before < await listed_at(world) <= before + 60
        assert await world.live(600, until=lambda memo: any(each.s is S.READY for each in memo.members))
        await world.handle.signal("look_now", "a value that nobody expects")
        await world.live(5)
        assert [each.i for each in (await world.memo()).members if each.i] != []
