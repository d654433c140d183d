"""Continue-as-new: a new run knows everything that the old one knew, and nothing that was sent is lost."""

import asyncio
from datetime import UTC
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from market.interface import Unavailable
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.parsing.limits import FACTOR_MAX, LOAD_MAX
from stoker_wire.states import WorkerState as S
from tests.workflows.world import group
from workflows.options import TRY_SECONDS_MAX

SMALL = EndpointConfig(min_load=0, min_workers=2, max_workers=4, inactivity_timeout=60, cold_mult=1)


def settled(memo: EndpointMemo) -> bool:
    return len(memo.members) == 2 and all(member.s in {S.READY, S.INACTIVE} for member in memo.members)


async def runs(world: Any) -> int:
    described = await world.client.get_workflow_handle(world.handle.id).describe()
    count, run_id = 1, described.run_id
    while True:
        handle = world.client.get_workflow_handle(world.handle.id, run_id=run_id)
        first = await anext(handle.fetch_history_events(page_size=1))
        run_id = first.workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            return count
        count += 1


async def test_a_new_run_knows_what_the_old_one_knew(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()], history_events_max=150)
        assert await world.live(600, until=settled)
        before = await world.handle.query("workers")
        rented = len(world.market.launches)
        await world.live(4 * 3600, step=60)
        assert await runs(world) > 2
        after = await world.handle.query("workers")
        assert [w["launch_id"] for w in after] == [w["launch_id"] for w in before]
        assert len(world.market.launches) == rented, "nothing is rented again"
        assert (await world.memo()).members, "the memo is handed on"
        status = await world.handle.query("status")
        assert status["learned"]["kinds"]
        assert (await world.handle.query("costs"))["dollars"] > 0
        assert (await world.handle.query("decisions", 150))[0]["at"] < before[0]["since"], (
            "so is the decision log"
        )


async def test_signals_in_flight_during_hand_overs_are_not_lost(real_world: Any) -> None:
    async with real_world() as world:
        await world.start(
            EndpointConfig(min_load=0, min_workers=0, max_workers=4), [group()], history_events_max=100
        )
        total = 400

        async def send(engine: str) -> None:
            for sequence in range(1, total // 4 + 1):
                await world.handle.signal(
                    "report_metrics",
                    {
                        "engine_id": engine,
                        "sequence": sequence,
                        "sent_at": world.now,
                        "window_s": 1.0,
                        "arrived_load": 1.0,
                        "last_request_at": world.now,
                    },
                )
                await world.handle.signal("update_config", {"max_queue_time": 10.0 + sequence})

        await asyncio.gather(*(send(f"engine-{number}") for number in range(4)))
        status = await world.handle.query("status")
        assert await runs(world) > 1
        assert status["config"]["max_queue_time"] == 10.0 + total // 4
        arrived = sum(load for _, load in (await world.handle.query("load"))["quarters"])
        assert arrived == pytest.approx(total), "each batch counts once, whichever run it reached"


async def test_a_create_that_is_under_way_is_asked_for_again_and_rents_once(a_world: Any) -> None:
    async with a_world(market={"list_lag_seconds": 2.0}) as world:
        world.market.lose_next_answer("create")
        world.market.fail_next("list", Unavailable("down"), times=5)
        one = SMALL.model_copy(update={"min_workers": 1})
        await world.start(one, [group(test_workers=0)], history_events_max=100)
        for number in range(100):
            await world.handle.signal("update_config", {"max_queue_time": 10.0 + number})
        assert await world.live(600, until=lambda memo: bool(memo.members) and memo.members[0].i > 0)
        assert await runs(world) > 1
        assert len(world.market.launches) == 1
        assert (await world.memo()).members[0].i == next(iter(world.market.instances))
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        assert any("lost answer" in line for line in lines)


async def test_what_is_carried_is_small(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()], history_events_max=150)
        assert await world.live(3600, until=settled)
        for _ in range(60):
            await world.live(60, load=30, step=30)
        first = await anext(
            world.client.get_workflow_handle(world.handle.id).fetch_history_events(page_size=1)
        )
        assert first.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
        [payload] = first.workflow_execution_started_event_attributes.input.payloads
        assert len(payload.data) < 60_000


async def test_a_restart_that_is_under_way_is_not_asked_for_again_before_its_last_try_has_ended(
    a_world: Any,
) -> None:
    """The worker would serve again after the old run's try, and lose its requests to the new run's."""
    async with a_world() as world:
        one = SMALL.model_copy(update={"min_workers": 1, "min_load": 1.0})
        await world.start(one, [group(test_workers=0)], history_events_max=120)
        assert await world.live(600, until=lambda memo: [m.s for m in memo.members] == [S.READY])
        world.market.fail_next("reboot", Unavailable("down"), times=1000)
        next(iter(world.boxes.values())).broken = "the model server crashed"
        await world.live(60, until=lambda _: world.market.count("reboot") > 0)
        before = await runs(world)
        for number in range(150):
            await world.handle.signal("update_config", {"max_queue_time": 10.0 + number})
        await world.live(600, until=lambda _: world.market.count("reboot") > 5)
        assert await runs(world) > before
        [*_, last] = await world.histories()
        begun = last.events[0].event_time.ToDatetime(UTC).timestamp()
        tries = [call.at for call in world.market.calls if call.name == "reboot"]
        assert any(at < begun for at in tries), "the run before had begun it"
        again = [at for at in tries if at >= begun]
        assert again
        assert again[0] >= begun + TRY_SECONDS_MAX


async def test_an_endpoint_with_the_largest_figures_lives_on(a_world: Any) -> None:
    """Their products are finite, so the state can be handed on as JSON. Larger figures are refused."""
    async with a_world() as world:
        await world.start(SMALL, [group()], history_events_max=100)
        assert await world.live(600, until=settled)
        await world.handle.signal("update_config", {"min_load": LOAD_MAX, "cold_mult": FACTOR_MAX})
        await world.handle.signal("update_config", {"min_load": 1e308})
        await world.live(3 * 3600, step=60)
        assert await runs(world) > 2
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        assert not any("could not be read" in line for line in lines)
        await world.handle.signal("update_config", {"min_load": 0.0, "cold_mult": 1.0})
        assert await world.live(1200, until=lambda memo: len(memo.members) == 2)
        await world.handle.signal("delete")
        assert await world.live(1200, until=lambda memo: not memo.members)
        assert not await world.market.list()
