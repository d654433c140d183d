"""Affinity on prefix-heavy traffic: the share of requests that find their prefix in the worker's cache, and the waits.

16 workers that each keep the last 8 of 96 prefixes. Prefixes are drawn by Zipf's law; a hit saves half of the request,
its prefill. The rate is 0.9 of the capacity without any hit. Otherwise as in `benchmarks.scaling.routing`.
"""

import itertools
import random
import statistics
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scaling import routing
from benchmarks.scaling.routing import AT_ONCE, COST_FACTOR, Case, Fleet, News, arrivals, declared
from policy.routing.affinity import affinity_point, owners
from policy.routing.worker_selection import Candidate

PREFIXES = 96
KEPT = 8
"""Prefixes in one worker's cache, the least recently used goes first."""
SAVED = 0.5
"""Share of a request that a hit saves."""


def prefixes(count: int, seed: int) -> list[int]:
    """The prefix of each request: number n is drawn in proportion to 1 / n."""
    weights = list(itertools.accumulate(1.0 / rank for rank in range(1, PREFIXES + 1)))
    return random.Random(f"{seed} prefixes").choices(range(PREFIXES), cum_weights=weights, k=count)


class CachingFleet(Fleet):
    """Workers with a prefix cache, and the router without affinity."""

    def __init__(
        self, case: Case, rows: list[tuple[float, float]], costs: list[float], news: News, drawn: list[int]
    ) -> None:
        super().__init__(case, rows, costs, news, hold=True)
        self.drawn = drawn
        self.points = [affinity_point(f"prefix {number}") for number in range(PREFIXES)]
        self.caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in case.perfs]
        self.hits = 0

    def work(self, request: int, number: int) -> float:
        """The work that is left of the request on this worker, in seconds at perf 1."""
        prefix, cache, size = self.drawn[request], self.caches[number], self.rows[request][1]
        hit = prefix in cache
        cache[prefix] = None
        cache.move_to_end(prefix)
        if len(cache) > KEPT:
            cache.popitem(last=False)
        self.hits += hit
        return size * (1.0 - SAVED) if hit else size


class Affine(CachingFleet):
    """As the engine routes requests with affinity keys."""

    def owners_of(self, request: int) -> Sequence[Candidate]:
        """The owners of the request's prefix."""
        return owners(self.candidates, self.points[self.drawn[request]])


class Sticky(Affine):
    """Always the owner, whatever its queue: plain consistent hashing."""

    def give(self, request: int) -> bool:
        """Sends the request to the owner."""
        self.put(request, int(self.owners_of(request)[0].launch_id))
        return True


@dataclass(frozen=True, slots=True)
class Row:
    """One row: medians over the seeds."""

    case: str
    router: str
    hit_share: float
    p99: float
    mean: float
    """Response times, seconds; the mean request takes 10 s without a hit on a worker of perf 1."""

    def __str__(self) -> str:
        return f"{self.case:<21}{self.router:<30}{self.hit_share:>9.1%}{self.p99:>9.1f} s{self.mean:>8.1f} s"


HEADING = f"{'case':<21}{'router':<30}{'hits':>9}{'p99':>11}{'mean':>10}"
ROUTERS: tuple[tuple[str, type[CachingFleet]], ...] = (
    ("without affinity", CachingFleet),
    ("with affinity", Affine),
    ("always the owner", Sticky),
)


def table(count: int, seeds: int) -> Iterator[Row]:
    """Every router on every case, on the same arrivals and prefixes."""
    for case in routing.CASES:
        runs = [(arrivals(case, count, seed), prefixes(count, seed)) for seed in range(seeds)]
        for name, kind in ROUTERS:
            made = []
            for seed, (rows, drawn) in enumerate(runs):
                fleet = kind(case, rows, declared(rows, COST_FACTOR, seed), AT_ONCE, drawn)
                made.append((fleet.run(), fleet.hits / count))
            yield Row(
                case.name,
                name,
                statistics.median(hits for _, hits in made),
                statistics.median(outcome.p99 for outcome, _ in made),
                statistics.median(outcome.mean for outcome, _ in made),
            )
