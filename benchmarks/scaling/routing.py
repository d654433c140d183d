"""The router against one central queue: 16 workers, lognormal sizes (CV 1.5), utilisation 0.9, knowledge 1 to 5 s old."""

import heapq
import math
import random
from dataclasses import dataclass

from policy.routing import Candidate, Choice, choose

WORKERS = 16
CV = 1.5
UTILISATION = 0.9
SERVICE_SECONDS = 10.0
"""Mean, on a worker of perf 1: answers of a language model. Against much shorter requests reports of 5 s are blind."""


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet and its traffic."""

    name: str
    perfs: tuple[float, ...]
    bursty: bool = False


CASES = (
    Case("identical workers", (1.0,) * WORKERS),
    Case("perf 1:2:4, Poisson", (1.0, 2.0, 4.0, 1.0) * (WORKERS // 4)),
    Case("perf 1:2:4, bursty", (1.0, 2.0, 4.0, 1.0) * (WORKERS // 4), bursty=True),
)


def arrivals(case: Case, count: int, seed: int) -> list[tuple[float, float]]:
    """(time, size), mean size `SERVICE_SECONDS`."""
    chance = random.Random(f"{seed} {case.name}")
    sigma = math.sqrt(math.log(1 + CV * CV))
    rate = UTILISATION * sum(case.perfs) / SERVICE_SECONDS
    rows, at, fast, until = [], 0.0, False, 0.0
    for _ in range(count):
        if case.bursty and at >= until:
            fast = not fast
            until = at + chance.expovariate(1 / (60.0 if fast else 240.0))
        # a fifth of the time at 2.2 times the rate, else at 0.7 times: the mean stays
        at += chance.expovariate(rate * ((2.2 if fast else 0.7) if case.bursty else 1.0))
        rows.append((at, SERVICE_SECONDS * math.exp(chance.gauss(-sigma * sigma / 2, sigma))))
    return rows


def central(case: Case, rows: list[tuple[float, float]]) -> float:
    """p99 response of one first-come-first-served queue; whoever is free longest takes the next, the fastest first."""
    free = [(0.0, -perf) for perf in case.perfs]
    heapq.heapify(free)
    responses = []
    for at, size in rows:
        idle = [each for each in free if each[0] <= at]
        taken = min(idle, key=lambda each: each[1]) if idle else free[0]
        free.remove(taken)
        heapq.heapify(free)
        end = max(at, taken[0]) + size / -taken[1]
        responses.append(end - at)
        heapq.heappush(free, (end, taken[1]))
    return _p99(responses)


def routed(
    case: Case, rows: list[tuple[float, float]], *, report_seconds: float, cost_factor: float, seed: int
) -> float:
    """p99 response when every request is given at once to the router's choice; workers report what they finished."""
    chance = random.Random(f"{seed} costs")
    span = math.log(cost_factor)
    candidates = [Candidate(str(n), perf=perf) for n, perf in enumerate(case.perfs)]
    free = [0.0] * len(case.perfs)
    unseen: list[tuple[float, int, float]] = []
    """Heap of (when the router hears of it, worker, declared cost)."""
    responses = []
    for at, size in rows:
        while unseen and unseen[0][0] <= at:
            _, number, cost = heapq.heappop(unseen)
            candidates[number].outstanding = max(0.0, candidates[number].outstanding - cost)
        declared = size * math.exp(chance.uniform(-span, span)) if span > 0 else size
        chosen = choose(candidates, declared, max_queue_time=math.inf)
        assert isinstance(chosen, Choice)
        number = int(chosen.candidate.launch_id)
        chosen.candidate.outstanding += declared
        end = max(at, free[number]) + size / case.perfs[number]
        free[number] = end
        responses.append(end - at)
        phase = number / len(free) * report_seconds
        heard = (math.floor((end - phase) / report_seconds) + 1) * report_seconds + phase
        heapq.heappush(unseen, (heard, number, declared))
    return _p99(responses)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def table(count: int, seeds: int) -> list[tuple[str, str, float]]:
    """(case, knowledge, p99 ÷ central), medians over the seeds."""
    lines = []
    for case in CASES:
        runs = [arrivals(case, count, seed) for seed in range(seeds)]
        best = [central(case, rows) for rows in runs]
        for report, factor in ((1.0, 1.0), (5.0, 1.0), (1.0, 2.0), (5.0, 2.0)):
            ratios = sorted(
                routed(case, rows, report_seconds=report, cost_factor=factor, seed=seed) / base
                for seed, (rows, base) in enumerate(zip(runs, best, strict=True))
            )
            cost = "exact" if factor == 1 else f"within x{factor:g}"
            lines.append((case.name, f"reports {report:g} s old, cost {cost}", ratios[len(ratios) // 2]))
    return lines
