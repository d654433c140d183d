"""What happens to a held call in one turn of the loop: its time is over or its client leaves, and a worker is free."""

import asyncio
import time
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from engine.api.parsing import FastRouteRequest
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from engine.settings import Timing
from stoker_wire.messages import EndpointMemo
from stoker_wire.worker_status import WorkerStatus
from tests.engine.conftest import settings

LAUNCH = "a" * 12


class Scene:
    """One endpoint with one worker that has not reported, and one call that waits for it."""

    def __init__(self, hold_seconds: float) -> None:
        client = MagicMock()
        client.get_workflow_handle.return_value.signal = AsyncMock()
        self.engine = Engine(settings(timing=Timing(hold_seconds=hold_seconds)), client)
        member = {"l": LAUNCH, "i": 101, "g": 1, "s": "idle", "t": 1}
        memo = EndpointMemo(id=1, name="llm", groups=(1,), created_at=1, changed_at=1, members=[member])
        self.endpoint: Endpoint = self.engine.directory.apply(memo, time.time())
        self.worker: KnownWorker = self.endpoint.workers[LAUNCH]

    def report(self) -> None:
        """The worker says that it is ready: whoever is held is given it."""
        status = WorkerStatus(id=101, loadtime=1, max_perf=100)
        self.worker.apply_report(status, "http://10.0.0.1:3000", time.time())
        self.engine.dispatcher.refresh(self.endpoint, time.time())

    async def call(self) -> "asyncio.Task[dict[str, Any]]":
        """The call, held."""
        asked = FastRouteRequest(endpoint="llm", cost=1)
        call = asyncio.create_task(RouteApi(self.engine).route(self.endpoint, asked))
        await asyncio.sleep(0)
        assert len(self.endpoint.request_queue.held()) == 1
        return call


async def test_a_call_that_is_given_a_worker_in_the_moment_in_which_its_time_is_over_is_told_so() -> None:
    scene = Scene(hold_seconds=0.1)
    call = await scene.call()
    asyncio.get_running_loop().call_later(0.1, scene.report)
    await asyncio.sleep(0.05)
    time.sleep(0.1)  # noqa: ASYNC251 - the loop is kept busy until both are due in one turn

    answer = await call

    assert answer["url"] == "http://10.0.0.1:3000"
    assert scene.worker.outstanding.tickets_open == 1


async def test_a_call_whose_client_leaves_in_the_moment_in_which_a_worker_is_free_gives_it_back() -> None:
    scene = Scene(hold_seconds=60.0)
    call = await scene.call()
    call.cancel()
    scene.report()

    with pytest.raises(asyncio.CancelledError):
        await call

    assert scene.worker.outstanding.tickets_open == 0
    assert len(scene.endpoint.request_queue) == 1, "its turn is kept for when it comes again"
