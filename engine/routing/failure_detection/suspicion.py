"""Evidence against one worker: requests that failed on it, and the times at which it broke."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policy.tuning import DEFAULT_TUNING

if TYPE_CHECKING:
    from engine.routing.requests.request_queue import QueuedRequest

_UNSERVED_MAX = 1000
_UNSERVED_SECONDS = 60.0


@dataclass(slots=True)
class Suspicion:
    """Whether the worker gets no requests because of failures, and for how long."""

    since: float | None = None
    """When the first request failed since the worker's last report, Unix seconds; None: no suspicion."""
    failures_in_row: int = 0
    excluded_until: float = 0.0
    """Unix seconds."""
    leaves_unordered: bool = False
    """The worker drains although its workflow did not order it: the marketplace or an operator stops it."""

    def record_failure(self, now: float) -> None:
        """A request failed: exclude the worker until its next report, and longer after several failures in a row."""
        if self.since is None:
            self.since = now
        self.failures_in_row += 1
        if self.failures_in_row > DEFAULT_TUNING.worker_failures_free:
            pause = min(
                DEFAULT_TUNING.worker_pause_seconds_max,
                0.25 * 2.0 ** (self.failures_in_row - DEFAULT_TUNING.worker_failures_free),
            )
            self.excluded_until = now + pause

    def record_success(self) -> None:
        """A request succeeded."""
        self.failures_in_row = 0
        self.excluded_until = 0.0

    def apply_report(self, now: float, *, leaves_unordered: bool) -> None:
        """A report clears the suspicion, unless the worker is leaving without an order."""
        since = self.since if self.leaves_unordered else None
        self.leaves_unordered = leaves_unordered
        self.since = (since or now) if leaves_unordered else None

    def clear(self) -> None:
        """The worker's process ended: its failures are no evidence about the next process."""
        self.since, self.leaves_unordered = None, False
        self.record_success()


@dataclass(frozen=True, slots=True)
class Unserved:
    """A request that left the worker without having been served."""

    at: float
    """Unix seconds."""
    request: "QueuedRequest"
    reported: bool
    """The worker itself reported the failure; False: only the client did."""


@dataclass(slots=True)
class Breaks:
    """When the worker last broke, and which requests it left unserved around that time."""

    at: float = -math.inf
    """When it last broke, Unix seconds: a new error, a restarted process, or missing reports."""
    cause: str = ""
    state_since: float = 0.0
    """`Listing.since` of the last state in which the workflow called the worker broken."""
    unserved: dict[str, Unserved] = field(default_factory=dict)
    """By `QueuedRequest.key`."""

    def add_unserved(self, request: "QueuedRequest", now: float, *, reported: bool) -> None:
        """Remember a request that failed on the worker. The number is bounded; old ones are dropped first."""
        if len(self.unserved) >= _UNSERVED_MAX:
            recent = {key: each for key, each in self.unserved.items() if now - each.at < _UNSERVED_SECONDS}
            self.unserved = recent
        if len(self.unserved) < _UNSERVED_MAX:
            self.unserved[request.key] = Unserved(now, request, reported)
