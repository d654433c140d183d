"""A worker that becomes ready while its release is on the way keeps its requests."""

from typing import Any

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MetricsBatch, WorkerMetrics
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group

ONE = EndpointConfig(min_load=1, min_workers=1, max_workers=1, cold_mult=1)


async def holds(world: World, launch_id: str, tickets: int) -> None:
    """The engine says that the worker is ready and has so many tickets."""
    (instance,) = world.market.instances.values()
    told = WorkerMetrics(
        launch_id=launch_id,
        instance_id=instance.id,
        condition="ready",
        perf=10.0,
        load=float(tickets),
        tickets_open=tickets,
        reported_at=world.now,
        url="http://10.0.0.1:3000",
    )
    await world.signal_metrics(
        MetricsBatch(
            engine_id=world.engine_id,
            sequence=world.next_sequence(),
            sent_at=world.now,
            workers=(told,),
        )
    )


async def test_its_release_waits_for_them(a_world: Any) -> None:
    async with a_world() as world:
        world.model_seconds = 10_000.0
        await world.start(ONE, [group()])
        assert await world.live(60, until=lambda memo: [each.s for each in memo.members] == [S.MODEL_LOADING])
        (member,) = (await world.memo()).members
        await world.handle.execute_update("remove_workergroup", 1)
        await holds(world, member.l, tickets=1)  # sent before this engine read the release
        await world.pass_time(30)
        assert world.market.count("destroy") == 0
        await holds(world, member.l, tickets=0)
        await world.pass_time(5)
        assert world.market.count("destroy") == 1


async def test_its_release_waits_no_longer_than_a_drain(a_world: Any) -> None:
    async with a_world() as world:
        world.model_seconds = 10_000.0
        await world.start(ONE.model_copy(update={"drain_seconds_max": 20.0}), [group()])
        assert await world.live(60, until=lambda memo: [each.s for each in memo.members] == [S.MODEL_LOADING])
        (member,) = (await world.memo()).members
        await world.handle.execute_update("remove_workergroup", 1)
        await holds(world, member.l, tickets=1)
        await world.pass_time(30)
        assert world.market.count("destroy") == 1
