"""A request in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
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
        """Where it is in its life."""
        if self._task.cancelled():
            return RequestStatus.CANCELLED
        return self._progress.status

    @property
    def wait(self) -> Wait | None:
        """Why it waits, or None while it does not."""
        return self._progress.wait

    @property
    def attempts(self) -> int:
        """Workers tried up to now."""
        return self._progress.attempts

    @property
    def request_idx(self) -> int:
        """The engine's number of the request; 0 before the first answer."""
        return self._progress.request_idx

    def done(self) -> bool:
        """Whether it has ended: answered, failed or cancelled."""
        return self._task.done()

    def cancel(self) -> bool:
        """Take it back: out of the queue, or away from its worker. False if it has ended already."""
        return self._task.cancel()
