"""The floor of a reaction through Temporal: a bare signal, a local activity, then an activity that starts."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

_TASK_QUEUE = "floor"
FLOOR_SIGNAL = "floor"
_SECONDS = timedelta(seconds=30)
_started: asyncio.Queue[float] = asyncio.Queue()


@activity.defn
async def plan() -> None:
    """The local activity: nothing."""


@activity.defn
async def act() -> None:
    """The activity: notes when it started."""
    _started.put_nowait(time.time())


@workflow.defn
class FloorWorkflow:
    """For each signal a local activity and an activity."""

    def __init__(self) -> None:
        self._signals = 0

    @workflow.signal(name=FLOOR_SIGNAL)
    def signal(self) -> None:
        """A bare signal."""
        self._signals += 1

    @workflow.run
    async def run(self) -> None:
        """Until it is terminated."""
        while True:
            await workflow.wait_condition(lambda: self._signals > 0)
            self._signals -= 1
            await workflow.execute_local_activity(plan, start_to_close_timeout=_SECONDS)
            await workflow.execute_activity(act, start_to_close_timeout=_SECONDS)


class Floor:
    """A workflow that does nothing else, and its worker."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    async def measure(self) -> tuple[float, float]:
        """Unix times of sending the signal and of the start of the activity."""
        sent = time.time()
        await self._handle.signal(FloorWorkflow.signal)
        return sent, await _started.get()

    async def history(self) -> WorkflowHistory:
        """Of all rounds."""
        return await self._handle.fetch_history()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, client: Client) -> AsyncIterator["Floor"]:
        """The floor, until the block ends."""
        async with Worker(
            client,
            task_queue=_TASK_QUEUE,
            workflows=[FloorWorkflow],
            activities=[plan, act],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            name = f"floor-{uuid.uuid4()}"
            handle = await client.start_workflow(FloorWorkflow.run, id=name, task_queue=_TASK_QUEUE)
            yield cls(handle)
            await handle.terminate()
