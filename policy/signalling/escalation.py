"""When what waits cannot wait to be told."""

import math

CAUSE_FIRST = "first request and no worker is ready"
CAUSE_BACKLOG = "the backlog doubled and no worker is ready"
CAUSE_QUEUE = "expected queue time is over target_queue_time"

DOUBLED = 2.0
GROWN = 1.5


class Escalation:
    """What an endpoint's workflow was last alarmed about, so that the same news calls it once."""

    __slots__ = ("_backlog", "_queue_seconds")

    def __init__(self) -> None:
        self._backlog = 0.0
        """How much waited with no worker ready when that was last said; 0: nothing did."""
        self._queue_seconds = 0.0
        """Expected queue time when it was last said to be over its target; 0: it was not."""

    def __repr__(self) -> str:
        return f"<Escalation backlog {self._backlog:g}, queue {self._queue_seconds:g} s>"

    def backlog(self, waits: float) -> str | None:
        """The cause to call the workflow for, with so much waiting and no worker ready: the first, and each doubling."""
        if self._backlog == 0:
            cause = CAUSE_FIRST
        elif waits >= DOUBLED * self._backlog:
            cause = CAUSE_BACKLOG
        else:
            return None
        self._backlog = waits
        return cause

    def served(self) -> None:
        """There is a worker, or nothing waits: the next backlog is a new one."""
        self._backlog = 0.0

    def queue(self, seconds: float, target_queue_time: float) -> str | None:
        """The cause, with a new request expected to wait so long: over its target, and each time it has grown by half.

        Infinite is the backlog's business. It counts as over once it has fallen below half of the target.
        """
        if seconds <= target_queue_time:
            if seconds < target_queue_time / 2:
                self._queue_seconds = 0.0
            return None
        if seconds < GROWN * self._queue_seconds or math.isinf(seconds):
            return None
        self._queue_seconds = seconds
        return CAUSE_QUEUE
