"""An operator drains, resumes, reboots and destroys single workers of a running endpoint."""

from typing import Any

import pytest

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.messages.test_messages import refusal
from tests.workflows.world import World, group

TWO = EndpointConfig(min_load=10, min_workers=1, max_workers=2)
WANTS = {"search_params": "gpu_name=RTX_4090", "test_workers": 0}


def states(memo: EndpointMemo) -> dict[str, S]:
    return {member.l: member.s for member in memo.members}


async def ask(world: World, launch_id: str, action: str) -> None:
    assert world.handle is not None
    await world.handle.execute_update("change_worker", {"launch_id": launch_id, "action": action})


async def test_a_drained_worker_stays_out_of_service_until_it_is_resumed(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(TWO, [group(**WANTS)])
        assert await world.live(600, until=lambda memo: S.READY in states(memo).values())
        (first,) = states(await world.memo())

        await ask(world, first, "drain")
        assert await world.live(600, load=5.0, until=lambda memo: states(memo).get(first) is S.INACTIVE)
        (member,) = [each for each in (await world.memo()).members if each.l == first]
        assert member.h == 1
        # min_load of 10 needs a hot worker: another machine is rented although a cold worker exists
        assert await world.live(
            900,
            load=5.0,
            until=lambda memo: any(
                each is S.READY for launch, each in states(memo).items() if launch != first
            ),
        )
        assert states(await world.memo())[first] is S.INACTIVE

        (other,) = [launch for launch in states(await world.memo()) if launch != first]
        await ask(world, other, "destroy")
        await ask(world, first, "resume")
        assert await world.live(900, load=5.0, until=lambda memo: other not in states(memo))
        assert await world.live(900, load=5.0, until=lambda memo: states(memo)[first] is S.READY)
        lines = [line["reason"] for line in await world.handle.query("decisions", 100)]
        assert "an operator asked to drain it while it was ready" in lines, lines
        assert any("an operator asked to destroy it" in each and "drained in" in each for each in lines)
        assert (await world.handle.query("hosts"))["blocked"] == []


async def test_a_rebooted_worker_serves_again_and_its_host_is_not_blamed(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(TWO, [group(**WANTS)])
        assert await world.live(600, until=lambda memo: S.READY in states(memo).values())
        (first,) = states(await world.memo())
        await ask(world, first, "reboot")
        assert await world.live(600, until=lambda _: world.market.count("reboot") == 1)
        assert await world.live(600, until=lambda memo: states(memo).get(first) is S.READY)
        (worker,) = await world.handle.query("workers")
        assert (worker["reboots"], worker["asked"]) == (0, None)
        assert (await world.handle.query("hosts"))["blocked"] == []
        assert world.market.count("destroy") == 0


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"launch_id": "0123456789ab", "action": "drain"}, "there is no worker 0123456789ab"),
        ({"launch_id": "0123456789ab", "action": "explode"}, "action"),
        ({"launch_id": "x" * 5000, "action": "drain"}, "launch_id"),
        ({"action": "drain"}, "launch_id"),
        ("destroy", "valid"),
    ],
)
async def test_an_action_that_cannot_be_used_is_refused(a_world: Any, sent: Any, says: str) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0), [group()])
        assert says in str(await refusal(world.handle, "change_worker", sent))


async def test_a_booting_worker_cannot_be_rebooted_and_the_refusal_says_what_can_be_done(
    a_world: Any,
) -> None:
    async with a_world() as world:
        world.model_seconds = 10_000.0
        await world.start(TWO, [group(**WANTS)])
        assert await world.live(300, until=lambda memo: S.MODEL_LOADING in states(memo).values())
        (first,) = states(await world.memo())
        refused = await refusal(world.handle, "change_worker", {"launch_id": first, "action": "reboot"})
        assert "is loading its model" in str(refused)
        assert "destroy it" in str(refused)
