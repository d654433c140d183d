"""When a backlog or a long queue time justifies an urgent report to the workflow."""

import math

from policy.tuning import DEFAULT_TUNING

CAUSE_FIRST = "first request and no worker is ready"
CAUSE_BACKLOG = "the backlog doubled and no worker is ready"
CAUSE_QUEUE = "expected queue time is over target_queue_time"


class Escalation:
    """The values of the last urgent reports: the same condition is reported again only after it has grown."""

    __slots__ = ("_backlog", "_queue_seconds")

    def __init__(self) -> None:
        self._backlog = 0.0
        """Load that waited without a ready worker at the last report; 0: none did."""
        self._queue_seconds = 0.0
        """Expected queue time at the last report that it is over target; 0: it was not."""

    def __repr__(self) -> str:
        return f"<Escalation backlog {self._backlog:g}, queue {self._queue_seconds:g} s>"

    def on_backlog(self, load: float) -> str | None:
        """The cause to report while `load` waits without a ready worker: at first, then at each doubling; else None."""
        if self._backlog == 0:
            cause = CAUSE_FIRST
        elif load >= DEFAULT_TUNING.escalation_backlog_factor * self._backlog:
            cause = CAUSE_BACKLOG
        else:
            return None
        self._backlog = load
        return cause

    def reset_backlog(self) -> None:
        """A worker is ready or the queue is empty: the next backlog is a new one."""
        self._backlog = 0.0

    def on_queue_time(self, seconds: float, target_queue_time: float) -> str | None:
        """The cause to report at this expected queue time: over target, then at each growth by half; else None.

        The episode ends once the queue time is below half of the target. `on_backlog` covers an infinite queue time.
        """
        if seconds <= target_queue_time:
            if seconds < target_queue_time / 2:
                self._queue_seconds = 0.0
            return None
        if seconds < DEFAULT_TUNING.escalation_queue_time_factor * self._queue_seconds or math.isinf(seconds):
            return None
        self._queue_seconds = seconds
        return CAUSE_QUEUE
