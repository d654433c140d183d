"""The floor of a reaction through Temporal: a bare signal, a local activity, then an activity that starts."""

import asyncio
import time
import uuid
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

_TASK_QUEUE = "floor"
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
class Floor:
    """For each signal a local activity and an activity."""

    def __init__(self) -> None:
        self._signals = 0

    @workflow.signal
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


async def floor_ms(client: Client, rounds: int) -> list[float]:
    """Milliseconds from sending the signal to the start of the activity."""
    taken = []
    async with Worker(
        client,
        task_queue=_TASK_QUEUE,
        workflows=[Floor],
        activities=[plan, act],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await client.start_workflow(Floor.run, id=f"floor-{uuid.uuid4()}", task_queue=_TASK_QUEUE)
        for number in range(rounds + 1):
            sent = time.time()
            await handle.signal(Floor.signal)
            started = await _started.get()
            if number:  # the first one also fills caches
                taken.append((started - sent) * 1000)
        await handle.terminate()
    return taken
