"""Requests in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from stoker.requests.answer import Answer
from stoker.requests.progress import Progress, RequestStatus, Wait


class Submission:
    """A handle on a request that runs in the background; `await` it for its answer."""

    def __init__(self, task: asyncio.Task[Answer], progress: Progress) -> None:
        self._task = task
        self._progress = progress

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._task.__await__()

    def __repr__(self) -> str:
        return f"<Submission {self._progress.request_idx} {self.status}>"

    @property
    def status(self) -> RequestStatus:
        """The request's state."""
        if self._task.cancelled():
            return RequestStatus.CANCELLED
        return self._progress.status

    @property
    def wait(self) -> Wait | None:
        """Why the request waits; None while it does not wait."""
        return self._progress.wait

    @property
    def attempts(self) -> int:
        """Workers tried up to now."""
        return self._progress.attempts

    @property
    def request_idx(self) -> int:
        """The engine's number of the request; 0 before its first answer."""
        return self._progress.request_idx

    def done(self) -> bool:
        """Whether the request was answered, has failed or was cancelled."""
        return self._task.done()

    def cancel(self) -> bool:
        """Cancel the request: remove it from the queue, or stop its worker. False if it has already ended."""
        return self._task.cancel()


class BackgroundRequests:
    """The requests that a client runs in the background."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Answer]] = set()

    def start(self, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        """Run a request until it ends or `cancel_all` is called."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def cancel_all(self) -> None:
        """Cancel the requests of the running event loop and wait for their end."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: an unread answer is no warning of the event loop
