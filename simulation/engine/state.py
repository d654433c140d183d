"""State of the simulated engine: its queue, and the workers as they last reported."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from policy.routing.queue_discipline import DeadlineQueue, SortKey
from policy.routing.worker_selection import Candidate
from simulation.machine import Machine


@dataclass(slots=True, eq=False)
class Member:
    """A ready worker as the engine knows it."""

    machine: Machine
    candidate: Candidate
    costs: dict[int, float] = field(default_factory=dict)
    """Declared cost of its requests that are not known to be finished."""
    done: list[int] = field(default_factory=list)
    """Requests that are finished and not reported yet."""
    report_due: bool = False
    reported_at: float = -math.inf
    running: int = -1
    """The running request of a worker that takes one at a time, as known; -1: none."""
    running_since: float = 0.0
    seen_at: float = 0.0
    waiting: int = 0
    """Its requests beyond what it serves at its full speed, as it last reported."""
    draining: bool = False
    """The engine has seen the drain."""
    sent_at: float = 0.0
    """When a batch last contained it."""


class EngineState:
    """The queue and the workers. `arrivals` are the arrival times of all requests of the trace."""

    def __init__(self, arrivals: Sequence[float]) -> None:
        self._arrivals = arrivals
        self.queue: DeadlineQueue[int] = DeadlineQueue(self._order)
        self.queued_load = 0.0
        self.returned: set[int] = set()
        """Requests whose machine is gone."""
        self.members: dict[int, Member] = {}
        self.candidates: list[Candidate] = []
        """Workers that get requests."""
        self.changed: dict[int, Member] = {}
        """Workers with changes to report."""
        self.departed: list[Machine] = []
        """Workers that stopped without a drain."""

    def _order(self, request: int) -> SortKey:
        return (request not in self.returned, self._arrivals[request], request)

    def queue_seconds(self) -> float:
        """Expected queue time of the endpoint, seconds; infinite with work and no worker."""
        held = self.queued_load + sum(each.outstanding - each.served for each in self.candidates)
        if held <= 0:
            return 0.0
        perf = sum(candidate.perf for candidate in self.candidates)
        return held / perf if perf > 0 else math.inf

    def update_candidates(self) -> None:
        """After a worker joined, left or drains."""
        self.candidates = [each.candidate for each in self.members.values() if not each.draining]
