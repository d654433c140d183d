"""ORACLE99: the cost of the cheapest schedule with knowledge of the whole trace, and its distance from the optimum.

The clairvoyant rents workers of one kind. It knows every arrival, starts each worker so early that it is ready when
it is needed, and chooses which 1 % of the requests may wait longer than 10 s. Three costs are fixed: a start is
billed for its mean duration, a disk is billed while the worker is cold, and a request occupies one worker for its
whole work.

`schedule` constructs such a schedule: feasible, so its cost is an upper bound of the optimum. `lower_bound` solves a
relaxation, so its cost is a lower bound. The optimum lies between them. Comparisons divide by the cost of `schedule`;
the quotient of the two bounds the error of that.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulation.settings import MachineKind, Spread, WorldSettings

ATTAIN_SECONDS = 10.0
ATTAIN_SHARE = 0.99
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices in seconds of a running worker."""

    start: float
    """Billed from the start call to ready."""
    create: float
    """The same for a new machine (create)."""
    cold: float
    """Price of a cold second, in running seconds."""
    dollars_per_hour: float
    cold_pool: bool = True

    @classmethod
    def of(cls, settings: WorldSettings) -> "Prices":
        """The prices of the world's reference kind, at its mean price."""
        return cls(
            start=_mean(settings.start),
            create=_mean(settings.loading),
            cold=settings.storage_share,
            dollars_per_hour=reference(settings).dollars_per_hour,
            cold_pool=settings.cold_pool,
        )

    def gap(self, seconds: float) -> float:
        """The cheapest way through an idle gap: stay hot, stop and start, or destroy and create."""
        ways = [seconds, self.create]
        if self.cold_pool:
            ways.append(self.start + self.cold * max(0.0, seconds - self.start))
        return min(ways)

    @property
    def restart(self) -> float:
        """The lowest price of becoming hot again."""
        return min(self.start, self.create) if self.cold_pool else self.create

    def dollars(self, seconds: float) -> float:
        """Running seconds in dollars."""
        return seconds / 3600.0 * self.dollars_per_hour


def reference(settings: WorldSettings) -> MachineKind:
    """The kind with the best price-performance; loads in workers are in units of it."""
    return max(settings.kinds, key=lambda kind: kind.perf / kind.dollars_per_hour)


def _mean(spread: Spread) -> float:
    """Of the lognormal distribution, seconds."""
    return spread.p50 * math.exp(spread.sigma**2 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A clairvoyant schedule in running seconds of one worker."""

    seconds: float
    """All costs."""
    hot_seconds: float
    busy_seconds: float
    starts: int
    missed: int
    """Requests that wait longer than allowed."""
    workers: int
    """The largest number of workers that exist."""


def schedule(
    times: Sequence[float],
    services: Sequence[float],
    prices: Prices,
    *,
    slack: float = ATTAIN_SECONDS,
    miss_share: float = 1.0 - ATTAIN_SHARE,
    rounds: int = 6,
) -> Schedule:
    """A cheap schedule in which at most `miss_share` of the requests wait longer than `slack` seconds.

    Every request goes to the lowest worker that can begin it in time, so that workers with high numbers are rarely
    needed. Then the stretches of work with the highest cost per request are given up, and the rest is packed again.
    """
    count = len(times)
    budget = int(count * miss_share + 1e-9)
    missed: set[int] = set()
    best = _cost(_pack(times, services, missed, slack), services, missed, prices)
    for number in range(rounds):
        if len(missed) >= budget:
            break
        lines = _pack(times, services, missed, slack)
        allowed = (
            max(1, (budget - len(missed)) // (rounds - number))
            if number < rounds - 1
            else budget - len(missed)
        )
        given_up = _dearest(lines, services, prices, allowed)
        if not given_up:
            break
        missed |= given_up
        tried = _cost(_pack(times, services, missed, slack), services, missed, prices)
        if tried.seconds < best.seconds:
            best = tried
    return best


@dataclass(slots=True)
class _Line:
    """One worker's work: (begin, end, request), in order."""

    jobs: list[tuple[float, float, int]]


def _pack(times: Sequence[float], services: Sequence[float], missed: set[int], slack: float) -> list[_Line]:
    lines: list[_Line] = []
    free: list[int] = []
    """Heap of workers that are idle now."""
    busy: list[tuple[float, int]] = []
    """Heap of (when it is free, worker)."""
    for request, at in enumerate(times):
        if request in missed:
            continue
        while busy and busy[0][0] <= at:
            heapq.heappush(free, heapq.heappop(busy)[1])
        soon = _lowest_soon(busy, at + slack)
        if free and (soon is None or free[0] < soon[1]):
            worker, begin = heapq.heappop(free), at
        elif soon is not None:
            begin, worker = soon
            busy.remove(soon)
            heapq.heapify(busy)
        else:
            worker, begin = len(lines), at
            lines.append(_Line([]))
        end = begin + services[request]
        lines[worker].jobs.append((begin, end, request))
        heapq.heappush(busy, (end, worker))
    return lines


def _lowest_soon(busy: list[tuple[float, int]], until: float) -> tuple[float, int] | None:
    """The lowest worker that becomes free in time."""
    best: tuple[float, int] | None = None
    for each in busy:
        if each[0] <= until and (best is None or each[1] < best[1]):
            best = each
    return best


def _clusters(line: _Line, prices: Prices) -> list[tuple[int, int]]:
    """Stretches (first, last + 1) between which the worker is not kept hot."""
    jobs = line.jobs
    cuts = [n for n in range(1, len(jobs)) if prices.gap(g := jobs[n][0] - jobs[n - 1][1]) < g - 1e-9]
    return list(zip([0, *cuts], [*cuts, len(jobs)], strict=True))


def _dearest(lines: list[_Line], services: Sequence[float], prices: Prices, allowed: int) -> set[int]:
    """Requests of the stretches that save most per request if they are served later."""
    offers: list[tuple[float, int, list[int]]] = []
    for line in lines:
        jobs = line.jobs
        for first, last in _clusters(line, prices):
            if last - first > allowed:
                offers += _edges(jobs, first, last, allowed)
                continue
            spent = jobs[last - 1][1] - jobs[first][0]
            before = jobs[first][0] - jobs[first - 1][1] if first > 0 else None
            after = jobs[last][0] - jobs[last - 1][1] if last < len(jobs) else None
            saved = spent + (prices.gap(before) if before is not None else prices.restart)
            if before is not None and after is not None:
                saved += prices.gap(after) - prices.gap(before + spent + after)
            saved -= sum(services[request] for _, _, request in jobs[first:last])
            requests = [request for _, _, request in jobs[first:last]]
            offers.append((saved / len(requests), len(offers), requests))
    chosen: set[int] = set()
    for saved, _, requests in sorted(offers, key=lambda offer: (-offer[0], offer[1])):
        if saved <= 0:
            break
        if len(chosen) + len(requests) <= allowed and chosen.isdisjoint(requests):
            chosen.update(requests)
    return chosen


def _edges(
    jobs: list[tuple[float, float, int]], first: int, last: int, allowed: int
) -> list[tuple[float, int, list[int]]]:
    """Single requests at both ends of a long stretch: the gap next to them is saved."""
    found = []
    if allowed >= 1 and last - first >= 2:
        found.append((jobs[first + 1][0] - jobs[first][1], -1 - jobs[first][2], [jobs[first][2]]))
        found.append((jobs[last - 1][0] - jobs[last - 2][1], -1 - jobs[last - 1][2], [jobs[last - 1][2]]))
    return found


def _cost(lines: list[_Line], services: Sequence[float], missed: set[int], prices: Prices) -> Schedule:
    hot = other = busy = 0.0
    starts = 0
    for line in lines:
        jobs = line.jobs
        if not jobs:
            continue
        # the pool exists before the first arrival, as for every scaler after the warm-up
        starts += 1
        other += prices.restart
        previous = jobs[0][0]
        for begin, end, _ in jobs:
            gap = begin - previous
            cheapest = prices.gap(gap)
            if cheapest < gap - 1e-9:
                starts += 1
                other += cheapest
            else:
                hot += gap
            hot += end - begin
            busy += end - begin
            previous = end
    # a request that is given up is served on an idle worker; its time is paid for in the worst case
    late = sum(services[request] for request in missed)
    return Schedule(
        seconds=hot + other + late,
        hot_seconds=hot + late,
        busy_seconds=busy + late,
        starts=starts,
        missed=len(missed),
        workers=len(lines),
    )


def lower_bound(
    times: Sequence[float],
    services: Sequence[float],
    prices: Prices,
    *,
    step: float = 5.0,
    slack: float = ATTAIN_SECONDS,
    miss_share: float = 1.0 - ATTAIN_SHARE,
    tries: int = 6,
    units: int = 1,
) -> float:
    """Running seconds that no schedule switching on a grid of `step` seconds can go below.

    A relaxation: (1) a request that begins within `slack` occupies its worker from its begin to its end, so the
    second number k of its service is done between arrival + k and arrival + k + slack; only that is demanded, and any
    worker may do it. (2) Missing is charged by the second of service that is late, at most one price per request. (3)
    Disks are free, and every start is the cheapest one. (4) The 1 % is a price per miss (Lagrange): for any price,
    the optimum minus price x allowed misses is a bound, and the best of `tries` is taken. Cumulated demand is rounded
    so that it comes earlier and is due later. Solved exactly by dynamic programming over (workers, backlog).
    Schedules that switch off the grid can be cheaper by at most 2 x step per start.
    """
    if not times:
        return 0.0
    served = (
        sum(services) + prices.restart
    )  # late requests are served too, and at least one worker has to start
    return max(served, _relaxed(times, services, prices, step, slack, miss_share, tries, units))


def _relaxed(
    times: Sequence[float],
    services: Sequence[float],
    prices: Prices,
    step: float,
    slack: float,
    miss_share: float,
    tries: int,
    units: int,
) -> float:
    demand = Demand.of(times, services, step=step, slack=slack, units=units)
    allowed = int(len(times) * miss_share + 1e-9)
    if allowed == 0:
        return demand.solve(1e7, prices.restart)

    def bound(log_price: float) -> float:
        price = math.exp(log_price)
        return demand.solve(price, prices.restart) - price * allowed

    # concave in the price: golden section over prices from a second to an hour per miss
    low, high = 0.0, math.log(3600.0)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = bound(left), bound(right)
    best = max(at_left, at_right)
    for _ in range(tries):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = bound(left)
            best = max(best, at_left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = bound(right)
            best = max(best, at_right)
    return best


@dataclass(slots=True)
class Demand:
    """Demand on a grid: arriving and due work, in units of step / units worker-seconds."""

    step: float
    units: int
    comes: list[int]
    """New units per step."""
    cap: list[int]
    """The largest remainder after each step without a miss."""
    charge: list[float]
    """Fewest misses per late unit, by step: one over the longest service in progress."""

    @classmethod
    def of(
        cls, times: Sequence[float], services: Sequence[float], *, step: float, slack: float, units: int
    ) -> "Demand":
        """From arrivals and their service times in seconds."""
        end = max(at + service for at, service in zip(times, services, strict=True)) + slack
        count = int(end // step) + 2
        comes, due = [0.0] * count, [0.0] * count
        longest = [0.0] * count
        for at, service in zip(times, services, strict=True):
            _spread(comes, at, service, step)
            _spread(due, at + slack, service, step)
            for number in range(int(at // step), min(count, int((at + slack + service) // step) + 1)):
                longest[number] = max(longest[number], service)
        unit = step / units
        released = _cumulated(comes, unit, up=True)
        owed = _cumulated(due, unit, up=False)
        new = [released[0], *(b - a for a, b in itertools.pairwise(released))]
        cap = [max(0, r - o) for r, o in zip(released, owed, strict=True)]
        charge = [unit / long if long > 0 else 1.0 for long in longest]
        return cls(step, units, new, cap, charge)

    def cells(self) -> int:
        """The number of values that `staff` stores."""
        return (max(self.comes) // self.units + 2) * (sum(self.cap) + len(self.cap))

    def staff(self, price: float, restart: float) -> list[int]:
        """The number of running workers in each step of the cheapest path."""
        kept: list[tuple[int, int, Any]] = []
        self.solve(price, restart, kept)
        counts, running, backlog = [0] * len(self.comes), 0, 0
        for number, steps, here in reversed(kept):
            column = here[:, min(backlog, here.shape[1] - 1)]
            best = min(
                range(len(column)),
                key=lambda c: (column[c] + restart * max(0, c - running), abs(c - running)),
            )
            for step in range(number - steps + 1, number + 1):
                counts[step] = best
            if steps == 1:
                left = max(0, backlog + self.comes[number] - self.units * best)
                backlog = left - max(0, left - self.cap[number])
            running = best
        return counts

    def solve(self, price: float, restart: float, kept: list[tuple[int, int, Any]] | None = None) -> float:
        """The least of running seconds + price x misses + restart x starts, from the last step to the first.

        `kept` collects (last step, how many at once, cost to go by workers and backlog), for `staff`.
        """
        import numpy as np  # noqa: PLC0415 - only bounds need it, and only demos and benchmarks install it

        workers = max(self.comes) // self.units + 2
        count = np.arange(workers)
        rise = (restart * count)[:, None]
        run = (self.step * count)[:, None]
        served = (self.units * count)[:, None]
        to_go = np.zeros((workers, self.cap[-1] + 1))
        number = len(self.comes) - 1
        while number >= 0:
            before = self.cap[number - 1] if number > 0 else 0
            comes, cap = self.comes[number], self.cap[number]
            steps = 1
            if comes == 0 and cap == 0 and before == 0:
                # no work and no backlog: running workers stay running to the end of the calm
                while number - steps >= 1 and self._calm(number - steps):
                    steps += 1
                here = to_go + steps * run
            else:
                left = np.maximum(np.arange(before + 1)[None, :] + comes - served, 0)
                late = np.maximum(left - cap, 0)
                here = np.take_along_axis(to_go, left - late, axis=1)
                here += run + (price * self.charge[number]) * late
            if kept is not None:
                kept.append((number, steps, here.astype(np.float32)))
            up = np.minimum.accumulate((here + rise)[::-1], axis=0)[::-1] - rise
            to_go = np.minimum(up, np.minimum.accumulate(here, axis=0))
            number -= steps
        return float(to_go[0, 0])

    def _calm(self, number: int) -> bool:
        before = self.cap[number - 1] if number > 0 else 0
        return self.comes[number] == 0 and self.cap[number] == 0 and before == 0


def _spread(bins: list[float], at: float, service: float, step: float) -> None:
    first, last = int(at // step), int((at + service) // step)
    if first == last:
        bins[first] += service
        return
    bins[first] += (first + 1) * step - at
    for number in range(first + 1, last):
        bins[number] += step
    bins[last] += at + service - last * step


def _cumulated(bins: list[float], unit: float, *, up: bool) -> list[int]:
    total, out = 0.0, []
    for value in bins:
        total += value
        out.append(math.ceil(total / unit - 1e-6) if up else math.floor(total / unit + 1e-6))
    return out
