"""The FIFO queue of the routes that run one request at a time."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol


class QueuedWork(Protocol):
    """An entry of the queue."""

    def start(self) -> None:
        """Begin the work. Call `WorkerQueue.leave` when it has ended."""


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """The current work of a worker that runs one request at a time."""

    load: float = 0.0
    """0: idle."""
    seconds: float = 0.0
    """Since its start."""


class WorkerQueue:
    """Runs one entry at a time. As in the official worker, all routes that are not parallel share one queue."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedWork] = deque()
        self._current: QueuedWork | None = None

    def join(self, work: QueuedWork) -> None:
        """Add an entry. It starts at once if the queue is empty."""
        if self._current is None:
            self._current = work
            work.start()
        else:
            self._waiting.append(work)

    def leave(self, work: QueuedWork) -> None:
        """Remove an entry, finished or cancelled, and start the next one."""
        if self._current is work:
            self._current = None
            if self._waiting:
                self._current = self._waiting.popleft()
                self._current.start()
        else:
            try:
                self._waiting.remove(work)
            except ValueError:
                return

    @property
    def current(self) -> QueuedWork | None:
        """The entry that runs."""
        return self._current

    def __len__(self) -> int:
        return len(self._waiting)


def expected_wait_seconds(load: float, perf: float) -> float:
    """The wait of a new request: load held, divided by perf (load per second). 0 while perf is unknown."""
    return load / perf if perf > 0 else 0.0
