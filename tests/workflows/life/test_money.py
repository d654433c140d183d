"""Prices that are not what was offered, and figures that are not what machines do: nothing is rented again and again."""

from typing import Any

import pytest

from market.fake import FakeMarket
from stoker_wire.control import TASK_QUEUE
from stoker_wire.endpoint import EndpointConfig
from tests.fuzz.test_workflow import failures
from tests.workflows import world as worlds
from tests.workflows.world import group, offers, replayer


async def test_a_machine_that_costs_more_than_its_offer_is_not_rented_again_and_again(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = FakeMarket._seen
    monkeypatch.setattr(
        FakeMarket,
        "_seen",
        lambda market, each: seen(market, each).model_copy(update={"dph_total": each.offer.dph_total * 1.05}),
    )
    async with a_world() as world:
        config = EndpointConfig(min_load=50, min_workers=0, max_workers=4, dollars_per_hour_max=0.205)
        await world.start(config, [group()])
        for _ in range(120):
            await world.live(5, load=50.0)
        assert 1 <= world.market.count("create") <= 12, "some are tried, and then it waits"
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_a_bid_counts_against_the_budget(a_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = FakeMarket._seen
    monkeypatch.setattr(
        FakeMarket,
        "_seen",
        lambda market, each: seen(market, each).model_copy(
            update={"dph_total": each.launch.bid_dollars_per_hour}
        ),
    )
    bids = [each.model_copy(update={"is_bid": True, "min_bid": each.dph_total}) for each in offers()]
    async with a_world(market={"offers": bids}) as world:
        config = EndpointConfig(min_load=50, min_workers=0, max_workers=4, dollars_per_hour_max=1.0)
        await world.start(config, [group(launch_args="--bid_price 5.0")])
        for _ in range(24):
            await world.live(5, load=50.0)
        assert world.market.count("create") == 0
        await world.handle.execute_update("update_config", {"dollars_per_hour_max": 11.0})
        for _ in range(24):
            await world.live(5, load=500.0)
        assert world.market.count("create") == 2, "two at 5 dollars"


async def test_a_perf_of_next_to_nothing_stops_neither_the_planner_nor_a_deletion(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "PERF", dict.fromkeys(worlds.PERF, 1e-310))
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=1), [group()])
        for _ in range(30):
            await world.live(10, load=1.0)
        lines = [line["reason"] for line in await world.handle.query("decisions", 200)]
        assert not [line for line in lines if line.startswith("planner")]
        await world.handle.signal("delete")
        await world.live_on_until_gone(600)
        assert not await world.market.list()


@pytest.mark.parametrize("spec", [{"carried": {"config": 3}}, {"key_version": 10**4300 - 1}])
async def test_an_input_that_nobody_gives_ends_the_workflow_with_a_sentence(
    a_world: Any, spec: dict[str, Any]
) -> None:
    async with a_world() as world:
        handle = await world.client.start_workflow(
            "EndpointWorkflow",
            {"endpoint_name": "x", "endpoint_id": 1} | spec,
            id="endpoint/x",
            task_queue=TASK_QUEUE,
        )
        with pytest.raises(Exception, match="Workflow execution failed"):
            await handle.result()
        assert not failures(await handle.fetch_history())


async def test_a_revision_beyond_all_numbers_is_refused(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0, max_workers=2), [group()])
        absurd = {"id": 1, "template_hash": "tmpl", "revision": 10**4300 - 1}
        await world.handle.signal("set_workergroup", absurd)
        line = (await world.handle.query("decisions"))[-1]
        assert "revision" in line["reason"]
        await world.handle.signal("update_workers", 1)
        assert (await world.handle.query("workergroups"))[0]["revision"] == 2
