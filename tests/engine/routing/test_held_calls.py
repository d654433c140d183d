"""A held call whose timeout or disconnect happens in the same loop iteration as its assignment."""

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
        """The worker reports ready, so the held call gets it."""
        status = WorkerStatus(id=101, loadtime=1, max_perf=100)
        self.worker.apply_report(status, "http://10.0.0.1:3000", time.time())
        self.engine.dispatcher.refresh(self.endpoint, time.time())

    async def call(self) -> "asyncio.Task[dict[str, Any]]":
        """Start a call and wait until it is held."""
        asked = FastRouteRequest(endpoint="llm", cost=1)
        call = asyncio.create_task(RouteApi(self.engine).route(self.endpoint, asked))
        await asyncio.sleep(0)
        assert len(self.endpoint.request_queue.held()) == 1
        return call


async def test_an_assignment_in_the_moment_of_the_timeout_is_answered() -> None:
    scene = Scene(hold_seconds=0.1)
    call = await scene.call()
    asyncio.get_running_loop().call_later(0.1, scene.report)
    await asyncio.sleep(0.05)
    time.sleep(0.1)  # noqa: ASYNC251 - block the loop until both are due in one iteration

    answer = await call

    assert answer["url"] == "http://10.0.0.1:3000"
    assert scene.worker.outstanding.tickets_open == 1


async def test_an_assignment_in_the_moment_of_the_disconnect_is_withdrawn() -> None:
    scene = Scene(hold_seconds=60.0)
    call = await scene.call()
    call.cancel()
    scene.report()

    with pytest.raises(asyncio.CancelledError):
        await call

    assert scene.worker.outstanding.tickets_open == 0
    assert len(scene.endpoint.request_queue) == 1, "it keeps its position for a retry"
