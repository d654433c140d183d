"""The world of `tests/workflows` on the server of this folder, to compare the two servers."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.instances import MarketActivities
from activities.planner import plan
from tests.seeded.temporal.executions import Weather
from tests.seeded.temporal.server import SUGGEST_EVENTS, Server
from tests.workflows.world import SECRETS, World, make_market
from workflows.endpoint import EndpointWorkflow

QUICK = Weather(rpc_seconds=0.005, task_seconds=0.005, local_seconds=0.005, calls_per_second=10_000)


class Environment:
    """The part of `WorkflowEnvironment` that `World` uses."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client = server.client

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def get_current_time(self) -> datetime:
        return datetime.fromtimestamp(self.server.now(), UTC)


def a_world_here(
    *, on_fault: Callable[[BaseException], None], history_suggested: int = SUGGEST_EVENTS, **market: Any
) -> tuple[World, Server]:
    """A world on this folder's server; it needs the event loop in virtual time."""
    server = Server(random.Random(1), QUICK, history_suggested=history_suggested)
    server.on_fault = on_fault
    environment = Environment(server)
    world = World(environment, environment.client, None)  # type: ignore[arg-type]
    world.market = make_market(world.clock, **market)
    hands = MarketActivities(world.market, SECRETS, now=world.clock)
    server.register(
        [EndpointWorkflow],
        [
            plan,
            hands.search_offers,
            hands.create_instance,
            hands.start_instance,
            hands.stop_instance,
            hands.reboot_instance,
            hands.destroy_instance,
            hands.update_instance,
            hands.list_instances,
        ],
    )
    return world, server
