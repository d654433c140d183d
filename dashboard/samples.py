"""One sample of an endpoint: the values of a chart at one time. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PERCENTILE_SECONDS = 60.0
"""Window of percentiles. Doubled: steadier percentiles that react later."""
RATE_SECONDS = 10.0
"""Window of rates. Doubled: smoother load that shows half of a short burst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An endpoint at one time. Loads and capacities in load/s, times in seconds."""

    at: float
    """Unix seconds."""
    load: float = 0.0
    """Arrived load per second."""
    requests: float = 0.0
    """Arrived requests per second."""
    capacity_hot: float = 0.0
    capacity_booting: float = 0.0
    capacity_cold: float = 0.0
    hot: float = 0.0
    booting: float = 0.0
    cold: float = 0.0
    failed: float = 0.0
    """Workers with an error."""
    queue: float = 0.0
    """Waiting requests."""
    queue_oldest: float = 0.0
    wait_p50: float = 0.0
    wait_p99: float = 0.0
    took_p50: float = 0.0
    took_p99: float = 0.0
    dollars_hot: float = 0.0
    """$/h of ready workers."""
    dollars_booting: float = 0.0
    """$/h of workers on the way to ready."""

    @property
    def dollars_used(self) -> float:
        """$/h of ready workers in proportion to the part of their capacity that the load takes."""
        if self.capacity_hot <= 0:
            return 0.0
        return self.dollars_hot * min(1.0, self.load / self.capacity_hot)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDollars:
    """What GPUs have cost in a time."""

    seconds: float
    """The time that the samples cover."""
    used: float
    unused: float
    """Ready, and not taken by load."""
    booting: float

    @property
    def wasted(self) -> float:
        """The part that served no request."""
        return self.unused + self.booting


def gpu_dollars(samples: Sequence[Sample], gap_seconds: float) -> GpuDollars:
    """The sum over the time between samples; a longer time than the gap is left out."""
    seconds = used = unused = booting = 0.0
    for first, second in pairwise(samples):
        passed = second.at - first.at
        if passed > gap_seconds:
            continue
        hours = passed / 3600.0
        seconds += passed
        used += first.dollars_used * hours
        unused += (first.dollars_hot - first.dollars_used) * hours
        booting += first.dollars_booting * hours
    return GpuDollars(seconds=seconds, used=used, unused=unused, booting=booting)


def percentile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """An estimate from bucket counts: linear within a bucket, and the last bound for longer values.

    Zero without any count.
    """
    total = sum(counts)
    if total <= 0:
        return 0.0
    wanted, seen, lower = share * total, 0.0, 0.0
    for count, upper in zip(counts, bounds, strict=False):
        if seen + count >= wanted and count > 0:
            return lower + (upper - lower) * (wanted - seen) / count
        seen, lower = seen + count, upper
    return lower


@dataclass(frozen=True, slots=True)
class _Counters:
    at: float
    load: float
    requests: float
    waited: tuple[int, ...]
    took: tuple[int, ...]


class Differ:
    """Turns an endpoint's counters into rates and percentiles over sliding windows."""

    def __init__(self) -> None:
        self._engine = ""
        self._seen: deque[_Counters] = deque()

    def sample(
        self, figures: dict[str, Any], *, at: float, engine_id: str, bounds: Sequence[float]
    ) -> Sample:
        """The sample for these figures. Counters of a restarted or another engine begin a new window."""
        now = _Counters(
            at,
            figures["arrived_load"],
            figures["arrived_requests"],
            tuple(figures["waited"]["counts"]),
            tuple(figures["took"]["counts"]),
        )
        if engine_id != self._engine:
            self._engine = engine_id
            self._seen.clear()
        if not self._seen:
            self._seen.append(now)
        while len(self._seen) > 1 and self._seen[1].at <= at - PERCENTILE_SECONDS:
            self._seen.popleft()
        first = self._seen[0]
        self._seen.append(now)
        recent = next((each for each in reversed(self._seen) if each.at <= at - RATE_SECONDS), first)
        seconds = max(at - recent.at, RATE_SECONDS)
        waited = [after - before for after, before in zip(now.waited, first.waited, strict=True)]
        took = [after - before for after, before in zip(now.took, first.took, strict=True)]
        stages, capacity, dollars = figures["stages"], figures["capacity"], figures["dollars_per_hour"]
        return Sample(
            at=at,
            load=(now.load - recent.load) / seconds,
            requests=(now.requests - recent.requests) / seconds,
            capacity_hot=capacity["hot"],
            capacity_booting=capacity["booting"],
            capacity_cold=capacity["cold"],
            hot=stages["hot"],
            booting=stages["booting"],
            cold=stages["cold"],
            failed=stages["failed"],
            queue=figures["queue_requests"],
            queue_oldest=figures["queue_oldest_s"],
            wait_p50=percentile(waited, bounds, 0.5),
            wait_p99=percentile(waited, bounds, 0.99),
            took_p50=percentile(took, bounds, 0.5),
            took_p99=percentile(took, bounds, 0.99),
            dollars_hot=dollars["hot"],
            dollars_booting=dollars["booting"],
        )
