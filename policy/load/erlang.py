"""Queueing model: waiting times that random arrivals cause although the mean capacity is sufficient.

Erlang's C formula for n equal workers, with the Allen-Cunneen correction for costs that are not exponential. It is
exact for exponential costs and Poisson arrivals at one central queue. Routing by expected finish time comes close to
that.
"""

import math
from dataclasses import dataclass

_WORKERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class WaitEstimate:
    """Expected waiting at sufficient mean capacity."""

    mean_seconds: float
    late_share: float
    """Share of requests that wait longer than the limit."""


def expected_wait(
    arrivals: float, capacity: float, *, perf: float, cost: float, spread: float, limit: float
) -> WaitEstimate:
    """Waiting at `arrivals` load/s and `capacity` load/s of workers with `perf`, for requests of mean cost `cost`.

    `spread` is E[cost²] / E[cost]²; `limit` is in seconds. Zero without arrivals. Also zero where arrivals exceed the
    capacity: that queue grows because of missing capacity, not because of random arrivals.
    """
    if arrivals <= 0 or capacity <= arrivals or perf <= 0 or cost <= 0:
        return WaitEstimate(0.0, 0.0)
    workers = min(max(round(capacity / perf), 1), _WORKERS_MAX)
    waits = erlang_c(workers, arrivals / capacity * workers)
    correction = spread / 2.0
    clearing = (capacity - arrivals) / cost / correction
    return WaitEstimate(waits / clearing, waits * math.exp(-clearing * limit))


def erlang_c(workers: int, busy: float) -> float:
    """Probability that an arrival finds all `workers` busy, where `busy` of them are busy on average."""
    if busy >= workers:
        return 1.0
    if busy <= 0:
        return 0.0
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = busy * blocked / (number + busy * blocked)
    return blocked / (1.0 - busy / workers * (1.0 - blocked))
