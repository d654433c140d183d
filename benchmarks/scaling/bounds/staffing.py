"""A second clairvoyant schedule: the optimal staffing of the relaxation, replayed with the real requests.

`oracle.schedule` packs requests onto workers and prunes; where bursts overlap, the staffing that `lower_bound` finds by
dynamic programming is often cheaper. It is replayed first come, first served, without preemption, each request on one
worker; requests that would wait too long go last. A schedule counts only if it attains the wanted share.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Any

from benchmarks.scaling.bounds.oracle import ATTAIN_SECONDS, ATTAIN_SHARE, Demand, Prices, Schedule, schedule

GRIDS = (1.0, 2.5, 5.0, 10.0)
"""Seconds; the finest that fits is taken."""
CELLS_MAX = 12_000_000
"""Bound on stored values, 4 bytes each: a day on a grid of a second would take gigabytes and minutes."""
STEPS_MANY = 6_000
"""Fewer candidates are tried for longer traces."""
PRICES = (5.0, 20.0, 60.0, 200.0, 800.0)
"""Price of a miss, in seconds of a worker."""
SLACKS = (1.0, 0.8, 0.6)
"""Shares of the allowed wait for which the staffing is planned, because real requests cannot be split."""


def cheapest_schedule(
    times: Sequence[float],
    services: Sequence[float],
    prices: Prices,
    *,
    slack: float = ATTAIN_SECONDS,
    miss_share: float = 1.0 - ATTAIN_SHARE,
    grids: Sequence[float] = GRIDS,
    units: int = 2,
) -> Schedule:
    """The cheaper of the packed schedule and the best staffed one."""
    best = schedule(times, services, prices, slack=slack, miss_share=miss_share)
    if not times:
        return best
    allowed = int(len(times) * miss_share + 1e-9)
    for step in grids:
        demand = Demand.of(times, services, step=step, slack=slack, units=units)
        if demand.cells() > CELLS_MAX:
            continue
        many = len(demand.comes) > STEPS_MANY
        for share in SLACKS[1:2] if many else SLACKS:
            demand = Demand.of(times, services, step=step, slack=share * slack, units=units)
            for price in PRICES[1::2] if many else PRICES:
                counts = demand.staff(price, prices.restart)
                tried = replay(times, services, prices, counts, step=step, slack=slack)
                if tried.missed <= allowed and tried.seconds < best.seconds:
                    best = tried
        break
    return best


class _Pool:
    """Running and stopped workers; the last stopped is started first. Counts their cost in running seconds."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._off: list[int] = []
        self._stopped_at: dict[int, float] = {}
        self._started_at: dict[int, float] = {}
        self.idle: list[int] = []
        self.on_seconds = self.gap_seconds = 0.0
        self.starts = self.workers = 0

    def become(self, wanted: int, now: float) -> None:
        """Sets the number of running workers; surplus workers stop after their request."""
        while len(self._started_at) < wanted:
            self._start(now)
        while len(self._started_at) > wanted and self.idle:
            self._stop(self.idle.pop(), now)

    def end(self, now: float) -> None:
        """Stops all workers."""
        for worker in tuple(self._started_at):
            self._stop(worker, now)

    def _start(self, now: float) -> None:
        if self._off:
            worker = self._off.pop()
            gap = now - self._stopped_at[worker]
            cheapest = self._prices.gap(gap)
            self.starts += cheapest < gap - 1e-9
        else:
            worker, cheapest = self.workers, self._prices.restart
            self.workers += 1
            self.starts += 1
        self.gap_seconds += cheapest
        self._started_at[worker] = now
        self.idle.append(worker)

    def _stop(self, worker: int, now: float) -> None:
        self.on_seconds += now - self._started_at.pop(worker)
        self._stopped_at[worker] = now
        self._off.append(worker)


def replay(
    times: Sequence[float],
    services: Sequence[float],
    prices: Prices,
    counts: Sequence[int],
    *,
    step: float,
    slack: float,
) -> Schedule:
    """Replays the requests on `counts` workers per step; the cost takes the cheapest way through each gap."""
    changes = deque(
        (number * step, count)
        for number, count in enumerate(counts)
        if count != (counts[number - 1] if number else 0)
    )
    arrivals = deque(enumerate(times))
    pool = _Pool(prices)
    waiting: deque[tuple[int, float]] = deque()
    late: deque[int] = deque()
    ends: list[tuple[float, int]] = []
    """Heap of (when, worker)."""
    wanted = missed = 0
    now = 0.0
    while nexts := [
        at for at in (_first(arrivals, 1), _first(changes, 0), ends[0][0] if ends else None) if at is not None
    ]:
        now = min(nexts)
        while changes and changes[0][0] <= now:
            wanted = changes.popleft()[1]
        while ends and ends[0][0] <= now:
            pool.idle.append(heapq.heappop(ends)[1])
        while arrivals and arrivals[0][1] <= now:
            waiting.append(arrivals.popleft())
        pool.become(wanted, now)
        while waiting and now - waiting[0][1] > slack + 1e-9:
            late.append(waiting.popleft()[0])
            missed += 1
        while pool.idle and (waiting or late):
            request = waiting.popleft()[0] if waiting else late.popleft()
            heapq.heappush(ends, (now + services[request], pool.idle.pop()))
    pool.end(now)
    # requests that never started are late, and are served after all others
    rest = sum(services[request] for request in (*(each for each, _ in waiting), *late))
    return Schedule(
        seconds=pool.on_seconds + pool.gap_seconds + rest,
        hot_seconds=pool.on_seconds + rest,
        busy_seconds=sum(services),
        starts=pool.starts,
        missed=missed + len(waiting),
        workers=pool.workers,
    )


def _first(queue: deque[tuple[Any, ...]], field: int) -> float | None:
    return queue[0][field] if queue else None
