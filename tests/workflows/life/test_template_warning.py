"""A template whose environment cannot be read as it is meant: told, and no reason to rent nothing or to blame hosts."""

from typing import Any

from stoker_wire.endpoint import EndpointConfig
from tests.workflows.world import TEMPLATE, group

ONE = EndpointConfig(min_load=0, min_workers=1, max_workers=1)


async def test_a_quote_in_a_templates_environment_is_a_warning_in_the_decision_log(a_world: Any) -> None:
    async with a_world() as world:
        odd = TEMPLATE.model_copy(update={"env": f"{TEMPLATE.env} -e GREETING=don't -e NAME"})
        world.market.templates[TEMPLATE.hash_id] = odd
        await world.start(ONE, [group(test_workers=0)])
        assert await world.live(300, until=lambda memo: any(member.i for member in memo.members))
        lines = [line["reason"] for line in await world.handle.query("decisions", 100)]
        warnings = [line for line in lines if line.startswith("warning: the environment of template 'echo'")]
        assert len(warnings) == 2
        assert (await world.handle.query("status"))["learned"]["failed_hosts"] == []
        assert world.market.count("create") == 1
