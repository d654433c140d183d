"""Hosts that failed: the workflow lists them, and forgets them on request."""

from typing import Any

import pytest

from stoker_wire.endpoint import EndpointConfig
from tests.workflows.messages.test_messages import refusal
from tests.workflows.world import group

ONE = EndpointConfig(min_load=10, min_workers=1, max_workers=1)
WANTS = {"search_params": "gpu_name=RTX_3090", "test_workers": 0}


async def test_a_blocked_host_is_listed_and_rented_again_once_it_is_unblocked(a_world: Any) -> None:
    async with a_world() as world:
        world.failing_machines = {500}
        await world.start(ONE, [group(**WANTS)])

        async def blocked() -> list[int]:
            said = await world.handle.query("hosts")
            return [host["machine_id"] for host in said["blocked"]]

        assert await world.live(3600, until=lambda _: world.market.count("destroy") == 1)
        (host,) = (await world.handle.query("hosts"))["blocked"]
        assert host["machine_id"] == 500
        assert "not ready" in host["reason"]
        assert host["until"] > world.clock()

        assert await world.handle.execute_update("unblock_hosts", [7]) == []
        assert await blocked() == [500]
        assert await world.handle.execute_update("unblock_hosts", [500, 7]) == [500]
        assert await blocked() == []
        lines = await world.handle.query("decisions", 20)
        assert any("1 hosts may be rented again: 500" in line["reason"] for line in lines)


async def test_an_update_without_machines_unblocks_every_host(a_world: Any) -> None:
    async with a_world() as world:
        world.failing_machines = {500}
        await world.start(ONE, [group(**WANTS)])
        assert await world.live(3600, until=lambda _: world.market.count("destroy") == 1)
        assert await world.handle.execute_update("unblock_hosts") == [500]
        assert (await world.handle.query("hosts"))["blocked"] == []


@pytest.mark.parametrize("sent", ["500", [0], ["500"], [True], [1.5], list(range(1, 1002))])
async def test_machine_ids_that_are_none_are_refused(a_world: Any, sent: Any) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0), [group()])
        assert "machine" in str(await refusal(world.handle, "unblock_hosts", sent))
        assert (await world.handle.query("hosts"))["blocked"] == []
