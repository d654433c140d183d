"""Whose turn it is: one line for the routes that take one request at a time, no line for the others."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol


class Waiter(Protocol):
    """Somebody in the line."""

    def turn(self) -> None:
        """It is this one's turn; it calls `WorkerQueue.leave` when it is through."""


@dataclass(frozen=True, slots=True)
class QueueSlot:
    """What a worker that takes one request at a time works on."""

    load: float = 0.0
    """0: nothing."""
    seconds: float = 0.0


class WorkerQueue:
    """First come, first served, one at a time. As in the official worker it spans all routes that are not parallel."""

    def __init__(self) -> None:
        self._waiting: deque[Waiter] = deque()
        self._served: Waiter | None = None

    def join(self, waiter: Waiter) -> None:
        """Wait for a turn; it may come at once."""
        if self._served is None:
            self._served = waiter
            waiter.turn()
        else:
            self._waiting.append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Done, or no longer interested; the next one's turn."""
        if self._served is waiter:
            self._served = None
            if self._waiting:
                self._served = self._waiting.popleft()
                self._served.turn()
        else:
            try:
                self._waiting.remove(waiter)
            except ValueError:
                return

    @property
    def served(self) -> Waiter | None:
        """Whose turn it is."""
        return self._served

    def __len__(self) -> int:
        return len(self._waiting)


def expected_wait_seconds(load: float, perf: float) -> float:
    """How long one more request would wait: the load held, over load per second. Unknown perf: no wait is known."""
    return load / perf if perf > 0 else 0.0
