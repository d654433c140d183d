"""Which worker a request goes to: the one that is expected to finish it first.

Finish time, (outstanding + cost) / perf, and not queue time, outstanding / perf: among workers of different speed the
queue time of every idle one is zero, and a long request would go to the slowest of them. With equal speeds both agree.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


class Candidate:
    """One worker as the router sees it; the engine owns it and keeps it current."""

    __slots__ = ("healthy", "launch_id", "outstanding", "perf")

    def __init__(
        self, launch_id: str, *, perf: float = 0.0, outstanding: float = 0.0, healthy: bool = True
    ) -> None:
        self.launch_id = launch_id
        self.perf = perf
        """Load/s; 0: not benchmarked, given nothing."""
        self.outstanding = outstanding
        """Load that it holds or is about to get (`Outstanding.load`)."""
        self.healthy = healthy
        """A member that reports, is ready and does not drain."""

    def __repr__(self) -> str:
        health = "healthy" if self.healthy else "out of rotation"
        return (
            f"<Candidate {self.launch_id} {health}, {self.outstanding:.4g} load over {self.perf:.4g} load/s>"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Where the request goes."""

    candidate: Candidate
    queue_seconds: float
    """Expected wait on the worker before the request is worked on."""
    finish_seconds: float


@dataclass(frozen=True, slots=True)
class Full:
    """No worker may take it now: it waits in the endpoint's queue."""

    healthy: int
    """Workers that could take requests at all; 0: there is none."""
    queue_seconds: float | None
    """Expected queue time of the least loaded one; None if there is none."""

    @property
    def reason(self) -> str:
        """For people."""
        if not self.healthy:
            return "no worker is ready"
        return (
            f"all {self.healthy} ready worker(s) are at max_queue_time (shortest: {self.queue_seconds:.1f} s)"
        )


def choose(
    candidates: Sequence[Candidate],
    cost: float,
    *,
    max_queue_time: float,
    avoid: Collection[str] = (),
    sequence: int = 0,
) -> Choice | Full:
    """The candidate with the least expected finish time among those below `max_queue_time` seconds of queue.

    `avoid` names launch ids that just failed this request: they get it only if no other worker is healthy at all.
    Ties go to the first in the order that starts at `sequence`, so that idle equals take turns without chance.
    A plain loop: it runs thousands of times a second over a hundred candidates.
    """
    count = len(candidates)
    if not count:
        return Full(0, None)
    offset = sequence % count
    best: Candidate | None = None
    best_finish = 0.0
    shortest = -1.0
    healthy = avoided = 0
    order = candidates if not offset else (*candidates[offset:], *candidates[:offset])
    for candidate in order:
        perf = candidate.perf
        if perf <= 0.0 or not candidate.healthy:
            continue
        if avoid and candidate.launch_id in avoid:
            avoided += 1
            continue
        healthy += 1
        outstanding = candidate.outstanding
        queue = outstanding / perf
        if shortest < 0.0 or queue < shortest:
            shortest = queue
        if queue >= max_queue_time:
            continue
        finish = (outstanding + cost) / perf
        if best is None or finish < best_finish:
            best = candidate
            best_finish = finish
    if best is not None:
        return Choice(best, best.outstanding / best.perf, best_finish)
    if not healthy and avoided:
        return choose(candidates, cost, max_queue_time=max_queue_time, sequence=sequence)
    return Full(healthy, shortest if healthy else None)


class Outstanding:
    """What one worker holds, as one engine can best know: its reports are a second old, our own routes are not.

    `load` is the larger of two lower bounds: what we routed and have not seen finished, and what the worker last
    reported plus what we routed that it had not seen then. The first misses other engines' requests, the second those
    that finished since the report. Without our own part every engine would herd to the same worker for a second.
    """

    __slots__ = ("_issued", "_own", "_unseen", "_unseen_load", "reported")

    def __init__(self) -> None:
        self.reported = 0.0
        self._issued: dict[int, float] = {}
        self._own = 0.0
        self._unseen: set[int] = set()
        self._unseen_load = 0.0

    @property
    def load(self) -> float:
        """Load outstanding now."""
        seen_later = self.reported + self._unseen_load
        return max(seen_later, self._own)

    @property
    def unseen(self) -> int:
        """Route answers that the worker has not seen yet."""
        return len(self._unseen)

    def issue(self, request: int, cost: float) -> None:
        """A request was routed to it."""
        self.finish(request)
        self._issued[request] = cost
        self._unseen.add(request)
        self._own += cost
        self._unseen_load += cost

    def finish(self, request: int) -> None:
        """The request is over, was cancelled, or its ticket ran out unused; unknown ones are ignored."""
        cost = self._issued.pop(request, None)
        if cost is None:
            return
        self._own = self._own - cost if self._issued else 0.0
        self._forget(request, cost)

    def see(self, request: int) -> None:
        """The worker has said that it has it."""
        cost = self._issued.get(request)
        if cost is not None:
            self._forget(request, cost)

    def report(self, load: float) -> None:
        """The worker reported its load; name what it has seen with `see` first."""
        self.reported = load

    def _forget(self, request: int, cost: float) -> None:
        if request in self._unseen:
            self._unseen.remove(request)
            self._unseen_load = self._unseen_load - cost if self._unseen else 0.0
