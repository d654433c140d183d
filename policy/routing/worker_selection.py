"""Which worker a request goes to: the one that is expected to finish it first; and whether it goes there already.

Finish time, (outstanding + cost) / perf, and not queue time, outstanding / perf: among workers of different speed the
queue time of every idle one is zero, and a long request would go to the slowest of them. With equal speeds both agree.

A request that was given out cannot be taken back when the one in front of it turns out long. Workers that take one
request at a time, and say so, are therefore given work only a little ahead: what is behind in the endpoint's line then goes to
whichever is free first.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policy.routing.service_time import ServiceTimes

AHEAD_MEANS = 0.1
"""A worker may have so many mean requests before the next one is given to it …"""
AHEAD_FINISH_MEANS = 2.5
"""… or more if the next one is so short that it ends within so many: nobody notices that it had to wait."""
AHEAD_TOLD = 2.0
"""Both are at least what a worker does while the news that it is free travels."""


class Candidate:
    """One worker as the router sees it; the engine owns it and keeps it current."""

    __slots__ = (
        "behind",
        "ends_at",
        "free_at",
        "healthy",
        "launch_id",
        "lengths",
        "outstanding",
        "perf",
        "running",
        "seen_at",
        "serial",
        "started_at",
        "told_within",
    )

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
        self.serial = False
        """It takes one request at a time and says which; only then is the rest known."""
        self.lengths: ServiceTimes | None = None
        self.running = 0.0
        """Declared cost of the request that it works on."""
        self.started_at = 0.0
        self.seen_at = 0.0
        """When it was last known to be at it still."""
        self.told_within = 0.0
        """Seconds after its end within which a request's end is told: silence for longer means that it goes on."""
        self.behind = 0.0
        """Declared load that waits behind that request."""
        self.ends_at = math.inf
        """When that request is expected to end; infinite: it has none."""
        self.free_at = 0.0
        """When all that it holds is expected to be done."""

    def rests(self, lengths: ServiceTimes, told_within: float) -> None:
        """A worker that takes one request at a time has none."""
        self.serial, self.lengths, self.told_within = True, lengths, told_within
        self.running = self.behind = self.free_at = 0.0
        self.ends_at = math.inf

    def works_on(
        self,
        cost: float,
        *,
        behind: float,
        started_at: float,
        seen_at: float,
        told_within: float,
        lengths: ServiceTimes,
    ) -> None:
        """A worker that takes one request at a time is at one of this cost since then; `behind` is what waits after it."""
        same = self.serial and self.started_at == started_at and self.ends_at < math.inf
        self.serial, self.lengths, self.told_within = True, lengths, told_within
        self.running, self.behind, self.started_at = cost, behind, started_at
        self.seen_at = max(seen_at, self.seen_at) if same else seen_at
        self._expect()

    def queue(self, now: float) -> float:
        """Seconds until a request given to it now is expected to be worked on."""
        if not self.serial:
            return self.outstanding / self.perf
        if now >= self.ends_at and now - self.told_within > self.seen_at:
            # Overdue, and nothing heard although an end would have been told by now: it goes on, and for how long?
            self.seen_at = now - self.told_within
            self._expect()
        return self.free_at - now if self.free_at > now else 0.0

    def _expect(self) -> None:
        lengths = self.lengths
        assert lengths is not None, "set by whoever calls"
        declared = self.running / self.perf if self.perf > 0 else 0.0
        done = max(0.0, self.seen_at - self.started_at)
        left = lengths.remaining(done / declared) * declared if declared > 0 else 0.0
        self.ends_at = self.seen_at + left
        self.free_at = self.ends_at + (self.behind * lengths.mean / self.perf if self.perf > 0 else 0.0)

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


@dataclass(frozen=True, slots=True)
class Later:
    """Somebody could take it, but nobody is free or nearly free: it keeps its turn in the endpoint's queue."""

    healthy: int
    queue_seconds: float
    """Expected queue time of the worker that would finish it first."""
    seconds: float
    """When to look again, if nothing is heard before."""

    @property
    def reason(self) -> str:
        """For people."""
        return (
            f"all {self.healthy} ready worker(s) are busy (the best: for another {self.queue_seconds:.1f} s)"
        )


class Ahead(NamedTuple):
    """How far ahead a busy worker that takes one request at a time is given the next."""

    queue_seconds: float
    finish_seconds: float
    most_seconds: float = math.inf
    """Of queue, however soon the request would end."""


def ahead(lengths: ServiceTimes, *, told_within: float, most_seconds: float = math.inf) -> Ahead | None:
    """How far ahead to give out, but for no longer a wait than `most_seconds`; None: at once, as ever.

    Too far, and requests are trapped behind others that take longer than they said; too near, and workers idle while the news
    that they are free travels. The mean request is the measure of both.
    """
    mean = lengths.seconds
    if mean <= 0:
        return None
    more = AHEAD_TOLD * told_within
    queue = min(AHEAD_MEANS * mean, most_seconds) + more
    return Ahead(queue, AHEAD_FINISH_MEANS * mean + more, most_seconds + more)


def choose(  # noqa: C901 - one pass over the candidates on the hot path; a call per candidate would double its time
    candidates: Sequence[Candidate],
    cost: float,
    *,
    max_queue_time: float,
    avoid: Collection[str] = (),
    sequence: int = 0,
    now: float = 0.0,
    ahead: Ahead | None = None,
    stretch: float = 1.0,
) -> Choice | Full | Later:
    """The candidate with the least expected finish time among those below `max_queue_time` seconds of queue.

    With `ahead`, one that takes a request at a time has to be nearly free, unless somebody is idle: no request waits
    while somebody could begin it. `stretch` is what requests take as a multiple of what they declare.
    `avoid` names launch ids that just failed this request: they get it only if no other worker is healthy at all.
    Ties go to the first in the order that starts at `sequence`, so that idle equals take turns without chance.
    A plain loop: it runs thousands of times a second over a hundred candidates.
    """
    count = len(candidates)
    if not count:
        return Full(0, None)
    offset = sequence % count
    best: Candidate | None = None
    best_finish = best_queue = 0.0
    shortest = -1.0
    healthy = avoided = 0
    at_once = ahead is None
    order = candidates if not offset else (*candidates[offset:], *candidates[:offset])
    for candidate in order:
        perf = candidate.perf
        if perf <= 0.0 or not candidate.healthy:
            continue
        if avoid and candidate.launch_id in avoid:
            avoided += 1
            continue
        healthy += 1
        if candidate.serial:
            free_at = candidate.free_at
            if now >= candidate.ends_at:
                queue = candidate.queue(now)
            else:
                queue = free_at - now if free_at > now else 0.0
            finish = queue + cost * stretch / perf
            if queue <= 0.0:
                at_once = True
        else:
            outstanding = candidate.outstanding
            queue = outstanding / perf
            finish = (outstanding + cost) / perf
            if queue < max_queue_time:
                at_once = True
        if shortest < 0.0 or queue < shortest:
            shortest = queue
        if queue >= max_queue_time:
            continue
        if best is None or finish < best_finish:
            best = candidate
            best_finish = finish
            best_queue = queue
    if best is not None:
        if ahead is not None and not at_once:
            soon = max(best_finish - ahead.finish_seconds, best_queue - ahead.most_seconds)
            wait = min(best_queue - ahead.queue_seconds, soon)
            if wait > 0.0:
                return Later(healthy, best_queue, wait)
        return Choice(best, best_queue, best_finish)
    if not healthy and avoided:
        return choose(
            candidates,
            cost,
            max_queue_time=max_queue_time,
            sequence=sequence,
            now=now,
            ahead=ahead,
            stretch=stretch,
        )
    return Full(healthy, shortest if healthy else None)
