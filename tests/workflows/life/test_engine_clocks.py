"""Engines run on other machines: an endpoint lives on whatever their clocks say."""

from typing import Any

import pytest

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo, MetricsBatch
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group, replayer

TWO = EndpointConfig(min_load=0, min_workers=2, max_workers=2)
AHEAD_SECONDS = 3600.0


def settled(memo: EndpointMemo) -> bool:
    return len(memo.members) == 2 and all(member.s in {S.READY, S.INACTIVE} for member in memo.members)


async def load(world: World) -> dict[str, Any]:
    assert world.handle is not None
    told: dict[str, Any] = await world.handle.query("load")
    return told


def moved(batch: MetricsBatch, seconds: float, frozen: dict[str, float]) -> MetricsBatch:
    """The batch of an engine whose clock is ahead, and of workers of which some have fallen silent."""
    workers = [
        worker.model_copy(
            update={
                "reported_at": frozen.get(worker.launch_id, worker.reported_at) + seconds,
                "suspect_since": None,
            }
        )
        for worker in batch.workers
    ]
    last = batch.last_request_at
    return batch.model_copy(
        update={
            "sent_at": batch.sent_at + seconds,
            "last_request_at": None if last is None else last + seconds,
            "workers": tuple(workers),
        }
    )


@pytest.mark.parametrize("sent_at", [1e300, -1e300, 1e18, -1e18, 1e12, 0.0])
async def test_a_batch_from_beyond_all_time_does_not_stop_the_endpoint(a_world: Any, sent_at: float) -> None:
    async with a_world() as world:
        await world.start(TWO, [group()])
        odd = MetricsBatch(
            engine_id="astray", sequence=1, sent_at=sent_at, window_s=1e12, arrived_load=5.0, arrived_requests=1,
            last_request_at=sent_at,
        )  # fmt: skip
        await world.signal_metrics(odd)
        assert await world.live(600, until=settled)
        assert (await load(world))["known_until"] <= world.now
        await world.handle.execute_update("update_config", {"max_workers": 3})
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_an_engine_whose_clock_is_ahead_tells_of_now(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        send, frozen = world.signal_metrics, {}
        monkeypatch.setattr(world, "signal_metrics", lambda batch: send(moved(batch, AHEAD_SECONDS, frozen)))
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.live(120, load=100.0)
        told = await load(world)
        assert world.now - 70 <= told["known_until"] <= world.now
        assert world.now - 70 <= told["last_request_at"] <= world.now

        # a worker that dies is missed as soon as with a right clock
        silent = next(member.l for member in (await world.memo()).members if member.s is S.READY)
        frozen[silent] = world.now
        before = world.market.count("reboot") + world.market.count("destroy")
        assert await world.live(
            300,
            load=100.0,
            until=lambda _: world.market.count("reboot") + world.market.count("destroy") > before,
        )
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_a_clock_that_is_a_little_ahead_is_left_alone(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        send = world.signal_metrics
        monkeypatch.setattr(world, "signal_metrics", lambda batch: send(moved(batch, 2.0, {})))
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.report(await world.memo(), 50.0, urgent="a test")
        told = await load(world)
        assert told["known_until"] > world.now


async def test_what_comes_late_from_a_right_clock_is_booked_when_it_was_sent(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.live(120, load=50.0)
        sent_at = world.now // 5 * 5 + 5
        await world.pass_time(105)
        late = MetricsBatch(
            engine_id=world.engine_id, sequence=world.next_sequence(), sent_at=sent_at, window_s=5.0,
            arrived_load=7000.0, arrived_requests=1,
        )  # fmt: skip
        before = dict((await load(world))["seconds"])
        await world.signal_metrics(late)
        after = dict((await load(world))["seconds"])
        assert {at for at in after if after[at] - before.get(at, 0.0) > 1000} <= {sent_at - 5, sent_at}
