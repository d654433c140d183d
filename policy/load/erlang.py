"""How long requests wait for chance alone, where capacity is enough on average.

Erlang's C formula for n equal workers, with the Allen-Cunneen correction for costs that are not exponential. Exact for
exponential costs and Poisson arrivals at one central queue; routing by expected finish time comes near to it.
"""

import math
from dataclasses import dataclass

_WORKERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Chance:
    """What chance does to requests that find enough capacity on average."""

    mean_seconds: float
    late_share: float
    """Share that waits longer than the limit."""


def chance(
    arrivals: float, capacity: float, *, perf: float, cost: float, spread: float, limit: float
) -> Chance:
    """Waits at `arrivals` load/s over `capacity` load/s of workers of `perf`, for requests of mean cost `cost`.

    `spread` is E[cost²] / E[cost]²; `limit` in seconds. Without arrivals nobody waits; without enough capacity the queue
    grows, which is not chance's doing and not counted here.
    """
    if arrivals <= 0 or capacity <= arrivals or perf <= 0 or cost <= 0:
        return Chance(0.0, 0.0)
    workers = min(max(round(capacity / perf), 1), _WORKERS_MAX)
    waits = erlang_c(workers, arrivals / capacity * workers)
    correction = spread / 2.0
    clearing = (capacity - arrivals) / cost / correction
    return Chance(waits / clearing, waits * math.exp(-clearing * limit))


def erlang_c(workers: int, busy: float) -> float:
    """The chance that an arrival finds all of `workers` busy, `busy` of them being busy on average."""
    if busy >= workers:
        return 1.0
    if busy <= 0:
        return 0.0
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = busy * blocked / (number + busy * blocked)
    return blocked / (1.0 - busy / workers * (1.0 - blocked))
