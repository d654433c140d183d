"""Which worker a request goes to: the one that is expected to finish it first, and whether to dispatch it already.

Workers are compared by finish time, (outstanding + cost) / perf. Queue time, outstanding / perf, is zero for every idle
worker: among workers of different speed it would send long requests to the slowest one.

A dispatched request cannot be moved when the request before it runs long. Workers that run one request at a time and
report which one therefore get the next request only shortly before they are free. The other requests stay in the
endpoint's queue.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policy.amounts import amount
from policy.routing.service_time import ServiceTimes
from policy.tuning import DEFAULT_TUNING


class Candidate:
    """One worker as the router sees it. The engine owns the record and updates it."""

    __slots__ = (
        "end_report_seconds",
        "expected_end_at",
        "free_at",
        "full",
        "launch_id",
        "outstanding",
        "parallel_perf",
        "perf",
        "queued_load",
        "running_cost",
        "seen_at",
        "serial",
        "served",
        "service_times",
        "started_at",
    )

    def __init__(self, launch_id: str, *, perf: float = 0.0, outstanding: float = 0.0) -> None:
        self.launch_id = launch_id
        self.perf = perf
        """Load/s; 0: no benchmark result yet, the worker gets no requests."""
        self.outstanding = outstanding
        """Load that the worker holds or is about to receive."""
        self.parallel_perf = perf
        """The perf of a worker that takes several requests at a time and has room; 0: the worker is another one."""
        self.served = 0.0
        """The part of `outstanding` that a worker which takes several requests at a time serves at its full speed."""
        self.full = False
        """Its model server has no room in its KV cache: it gets no request until it has."""
        self.serial = False
        """The worker runs one request at a time and reports which one. The fields below are valid only then."""
        self.service_times: ServiceTimes | None = None
        self.running_cost = 0.0
        """Declared cost of the running request."""
        self.started_at = 0.0
        """When the running request started."""
        self.seen_at = 0.0
        """When the request was last known to run."""
        self.end_report_seconds = 0.0
        """The worker reports the end of a request within this many seconds."""
        self.queued_load = 0.0
        """Declared load that waits on the worker behind the running request."""
        self.expected_end_at = math.inf
        """When the running request is expected to end; infinite: none runs."""
        self.free_at = 0.0
        """When the worker is expected to have finished everything that it holds."""

    def set_parallel(self, *, full: bool, served: float = 0.0) -> None:
        """Record that the worker takes several requests at a time, and whether its KV cache is full.

        `served` is 0 where it is not known how many it serves at once: all of its load then counts as waiting.
        """
        self.serial, self.full, self.served = False, full, served
        self.parallel_perf = 0.0 if full else self.perf

    def set_idle(self, service_times: ServiceTimes, end_report_seconds: float) -> None:
        """Record that a serial worker runs no request."""
        self.serial, self.service_times, self.end_report_seconds = True, service_times, end_report_seconds
        self.parallel_perf = 0.0
        self.running_cost = self.queued_load = self.free_at = 0.0
        self.expected_end_at = math.inf

    def set_running(
        self,
        cost: float,
        *,
        queued_load: float,
        started_at: float,
        seen_at: float,
        end_report_seconds: float,
        service_times: ServiceTimes,
    ) -> None:
        """Record that a serial worker runs a request of this cost, with `queued_load` waiting behind it."""
        same = self.serial and self.started_at == started_at and self.expected_end_at < math.inf
        self.serial, self.service_times, self.end_report_seconds = True, service_times, end_report_seconds
        self.parallel_perf = 0.0
        self.running_cost, self.queued_load, self.started_at = cost, queued_load, started_at
        self.seen_at = max(seen_at, self.seen_at) if same else seen_at
        self._estimate_end()

    def queue_seconds(self, now: float) -> float:
        """Seconds until a request dispatched now is expected to start."""
        if not self.serial:
            return (self.outstanding - self.served) / self.perf
        if now >= self.expected_end_at and now - self.end_report_seconds > self.seen_at:
            # Overdue, and an end would have been reported by now: the request still runs, so estimate again.
            self.seen_at = now - self.end_report_seconds
            self._estimate_end()
        return self.free_at - now if self.free_at > now else 0.0

    def _estimate_end(self) -> None:
        times = self.service_times
        assert times is not None, "set_idle or set_running was called before"
        declared = self.running_cost / self.perf if self.perf > 0 else 0.0
        done = max(0.0, self.seen_at - self.started_at)
        left = times.remaining(done / declared) * declared if declared > 0 else 0.0
        self.expected_end_at = self.seen_at + left
        queued = self.queued_load * times.mean_ratio / self.perf if self.perf > 0 else 0.0
        self.free_at = self.expected_end_at + queued

    def __repr__(self) -> str:
        return (
            f"<Candidate {self.launch_id}, {amount(self.outstanding)} load over {amount(self.perf)} load/s>"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The worker that gets the request."""

    candidate: Candidate
    queue_seconds: float
    """Expected wait on the worker before the request starts."""
    finish_seconds: float
    """Expected time until the request is finished."""


@dataclass(frozen=True, slots=True)
class Full:
    """Every worker is at `max_queue_time` or full, or none is ready: the request waits in the endpoint's queue."""

    healthy: int
    """Number of workers that can serve requests."""
    queue_seconds: float | None
    """Expected queue time of the least loaded worker; None without workers."""
    cache_full: int = 0
    """Number of workers without room in their KV cache."""

    @property
    def reason(self) -> str:
        """One sentence for people."""
        if not self.healthy:
            return "no worker is ready"
        if self.cache_full:
            return f"{self.cache_full} of {self.healthy} ready worker(s) have a full KV cache, the rest a full queue"
        return (
            f"all {self.healthy} ready worker(s) are at max_queue_time (shortest: {self.queue_seconds:.1f} s)"
        )


@dataclass(frozen=True, slots=True)
class AllBusy:
    """A worker could queue the request, but none is free or nearly free: it stays in the endpoint's queue."""

    healthy: int
    queue_seconds: float
    """Expected queue time of the worker that would finish the request first."""
    retry_seconds: float
    """When to choose again if no report arrives before."""

    @property
    def reason(self) -> str:
        """One sentence for people."""
        return f"all {self.healthy} ready worker(s) are busy (the best one is free in {self.queue_seconds:.1f} s)"


class PrefetchLimits(NamedTuple):
    """How early a busy serial worker gets its next request."""

    queue_seconds: float
    """Dispatch if the worker is free within this time."""
    finish_seconds: float
    """Dispatch also if the request finishes within this time."""
    queue_seconds_max: float = math.inf
    """Upper bound on the queue time for both."""


def prefetch_limits(
    service_times: ServiceTimes, *, end_report_seconds: float, queue_seconds_max: float = math.inf
) -> PrefetchLimits | None:
    """Limits in proportion to the mean service time; None: the mean is unknown, dispatch at once.

    Too early, and requests are stuck behind others that run longer than declared. Too late, and workers idle while the
    report of their last request travels. `queue_seconds_max` bounds the wait on a worker.
    """
    mean = service_times.mean_seconds
    if mean <= 0:
        return None
    delay = DEFAULT_TUNING.prefetch_report_delays * end_report_seconds
    return PrefetchLimits(
        queue_seconds=min(DEFAULT_TUNING.prefetch_means * mean, queue_seconds_max) + delay,
        finish_seconds=DEFAULT_TUNING.prefetch_finish_means * mean + delay,
        queue_seconds_max=queue_seconds_max + delay,
    )


def _choose_parallel(
    candidates: Sequence[Candidate], cost: float, max_queue_time: float, offset: int
) -> Choice | None:
    """The choice where every worker takes several requests at a time and has room; None: look at each one.

    A comprehension takes a fifth of the time of the loop in `choose`.
    """
    try:
        finishes = [(each.outstanding + cost) / each.parallel_perf for each in candidates]
    except ZeroDivisionError:
        return None
    finish = min(finishes)
    try:
        best = candidates[finishes.index(finish, offset)]
    except ValueError:
        best = candidates[finishes.index(finish)]
    queue = (best.outstanding - best.served) / best.perf
    return Choice(best, queue, finish) if queue < max_queue_time else None


def choose(  # noqa: C901 - one pass over the candidates on the hot path; a call per candidate would double its time
    candidates: Sequence[Candidate],
    cost: float,
    *,
    max_queue_time: float,
    avoid: Collection[str] = (),
    sequence: int = 0,
    now: float = 0.0,
    prefetch: PrefetchLimits | None = None,
    cost_ratio: float = 1.0,
    owners: Sequence[Candidate] = (),
) -> Choice | Full | AllBusy:
    """The worker with the least expected finish time among those below `max_queue_time` seconds of queue.

    With `prefetch` a busy serial worker gets the request only within these limits, unless some worker is idle.
    `cost_ratio` is the mean service time as a multiple of the declared one. `avoid` names workers that just failed this
    request: they are used only if no other worker is healthy. Ties go to the first in the order that starts at
    `sequence`, so that equal idle workers take turns. `owners` have the request's prefix in their cache
    (`policy.routing.affinity`): each is expected to save `Tuning.affinity_saved_share` of the cost, and is given up
    for the next one when its queue takes longer than that. One plain loop, because it runs thousands of times a second.
    """
    count = len(candidates)
    if not count:
        return Full(0, None)
    offset = sequence % count
    if not avoid and not owners:
        quick = _choose_parallel(candidates, cost, max_queue_time, offset)
        if quick is not None:
            return quick
    best: Candidate | None = None
    best_finish = best_queue = 0.0
    shortest = -1.0
    healthy = avoided = cache_full = 0
    at_once = prefetch is None
    order = candidates if not offset else (*candidates[offset:], *candidates[:offset])
    for candidate in order:
        perf = candidate.perf
        if perf <= 0.0:
            continue
        if avoid and candidate.launch_id in avoid:
            avoided += 1
            continue
        healthy += 1
        if candidate.serial:
            free_at = candidate.free_at
            if now >= candidate.expected_end_at:
                queue = candidate.queue_seconds(now)
            else:
                queue = free_at - now if free_at > now else 0.0
            finish = queue + cost * cost_ratio / perf
            if queue <= 0.0:
                at_once = True
        else:
            outstanding = candidate.outstanding
            queue = (outstanding - candidate.served) / perf
            finish = (outstanding + cost) / perf
            if queue < max_queue_time:
                at_once = True
        if shortest < 0.0 or queue < shortest:
            shortest = queue
        if candidate.full:
            cache_full += 1
            continue
        if queue >= max_queue_time:
            continue
        if best is None or finish < best_finish:
            best = candidate
            best_finish = finish
            best_queue = queue
    if best is not None:
        for owner in owners:
            if owner.full:
                continue
            queue = owner.queue_seconds(now)
            unsaved = cost * (1.0 - DEFAULT_TUNING.affinity_saved_share)
            if owner.serial:
                finish = queue + unsaved * cost_ratio / owner.perf
            else:
                finish = (owner.outstanding + unsaved) / owner.perf
            if queue < max_queue_time and finish <= best_finish:
                best, best_finish, best_queue = owner, finish, queue
                break
        if prefetch is not None and not at_once:
            soon = max(best_finish - prefetch.finish_seconds, best_queue - prefetch.queue_seconds_max)
            wait = min(best_queue - prefetch.queue_seconds, soon)
            if wait > 0.0:
                return AllBusy(healthy, best_queue, retry_seconds=wait)
        return Choice(best, best_queue, best_finish)
    if not healthy and avoided:
        return choose(
            candidates,
            cost,
            max_queue_time=max_queue_time,
            sequence=sequence,
            now=now,
            prefetch=prefetch,
            cost_ratio=cost_ratio,
        )
    return Full(healthy, shortest if healthy else None, cache_full)
