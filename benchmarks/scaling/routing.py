"""The router against one central queue: 16 workers, lognormal sizes (CV 1.5), utilisation 0.9, costs known within x2.

The central queue is first come, first served with full knowledge: the request that waited longest gets the free
worker, the fastest if several are free. A router knows only the reports, which arrive late.
`policy.routing.worker_selection` decides here as in the engine.
"""

import heapq
import math
import random
import statistics
from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import AllBusy, Candidate, Choice, choose, prefetch_limits

WORKERS = 16
CV = 1.5
UTILISATION = 0.9
SERVICE_SECONDS = 10.0
"""Mean service time on a worker of perf 1, seconds, as of a language model. Reports every 5 s say little about much
shorter requests."""
COST_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet and its traffic."""

    name: str
    perfs: tuple[float, ...]
    goal: float
    bursty: bool = False


CASES = (
    Case("identical workers", (1.0,) * WORKERS, 1.02),
    Case("perf 1:2:4, Poisson", (1.0, 2.0, 4.0, 1.0) * (WORKERS // 4), 0.85),
    Case("perf 1:2:4, bursty", (1.0, 2.0, 4.0, 1.0) * (WORKERS // 4), 1.0, bursty=True),
)


@dataclass(frozen=True, slots=True)
class News:
    """How reports reach the router."""

    name: str
    period: float = 0.0
    """Report period of each worker, seconds."""
    delay: float = 0.0
    """Without a period: an end is reported after this delay, and silence means that the request still runs."""
    end_report_seconds: float = 0.0

    @property
    def within(self) -> float:
        """The delay that the router assumes, seconds."""
        return self.period or self.end_report_seconds


AT_ONCE = News("an end is told at once (stoker's worker)", delay=0.1, end_report_seconds=0.5)
NEWS = (AT_ONCE, News("reports every 1 s", period=1.0), News("reports every 5 s", period=5.0))


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


def declared(rows: list[tuple[float, float]], factor: float, seed: int) -> list[float]:
    """The declared sizes: wrong by up to this factor, uniform in the logarithm."""
    chance, span = random.Random(f"{seed} costs"), math.log(factor)
    return [size * math.exp(chance.uniform(-span, span)) if span > 0 else size for _, size in rows]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Response times."""

    p99: float
    mean: float

    @classmethod
    def of(cls, responses: list[float]) -> "Outcome":
        """Of all requests."""
        return cls(sorted(responses)[int(len(responses) * 0.99)], statistics.fmean(responses))


def central(case: Case, rows: list[tuple[float, float]]) -> Outcome:
    """One first-come-first-served queue; the fastest idle worker takes the next request."""
    free = [(0.0, -perf) for perf in case.perfs]
    responses = []
    for at, size in rows:
        idle = [each for each in free if each[0] <= at]
        taken = min(idle, key=lambda each: each[1]) if idle else min(free)
        free.remove(taken)
        end = max(at, taken[0]) + size / -taken[1]
        responses.append(end - at)
        insort(free, (end, taken[1]))
    return Outcome.of(responses)


class Fleet:
    """The real state of the workers, and the router's view of it."""

    def __init__(
        self, case: Case, rows: list[tuple[float, float]], costs: list[float], news: News, *, hold: bool
    ) -> None:
        self.case, self.rows, self.costs, self.news, self.hold = case, rows, costs, news, hold
        self.now = 0.0
        self.service_times = ServiceTimes()
        self.candidates = [Candidate(str(number), perf=perf) for number, perf in enumerate(case.perfs)]
        for candidate in self.candidates:
            candidate.set_idle(self.service_times, news.within)
        self.held: list[deque[int]] = [deque() for _ in case.perfs]
        self.began = [0.0] * len(case.perfs)
        self.known: list[tuple[int, float, float]] = [(-1, 0.0, 0.0)] * len(case.perfs)
        """The router's view of the running requests: (request, since, last seen running)."""
        self.given = [0] * len(case.perfs)
        """Requests that were dispatched and are not known to be finished."""
        self.ended: list[list[tuple[int, float]]] = [[] for _ in case.perfs]
        """(request, seconds taken) that are not reported to the router yet."""
        self.line: deque[int] = deque()
        self.look_at = math.inf
        self.events: list[tuple[float, int, int, int]] = []
        self.responses: list[float] = []

    def run(self) -> Outcome:
        """All requests."""
        for number in range(len(self.case.perfs)) if self.news.period else ():
            at = (number + 1) / len(self.case.perfs) * self.news.period
            heapq.heappush(self.events, (at, 1, number, 0))
        for request, (at, _) in enumerate(self.rows):
            self._until(at)
            self.now = at
            if self.line or not self.give(request):
                self.line.append(request)
        self._until(math.inf)
        return Outcome.of(self.responses)

    def _until(self, at: float) -> None:
        while self.events and self.events[0][0] <= at and len(self.responses) < len(self.rows):
            self.now, what, number, _ = heapq.heappop(self.events)
            if what == 0:
                self._end(number)
            elif what == 1:
                self.hear(number)
                if self.news.period:
                    heapq.heappush(self.events, (self.now + self.news.period, 1, number, 0))
            elif self.now == self.look_at:
                self.look_at = math.inf
                self.pump()

    # -- real state

    def put(self, request: int, number: int) -> None:
        """Sends the request to this worker."""
        candidate = self.candidates[number]
        candidate.outstanding += self.costs[request]
        self.given[number] += 1
        if self.known[number][0] < 0:
            self.known[number] = (request, self.now, self.now)
        self._gauge(number)
        self.held[number].append(request)
        if len(self.held[number]) == 1:
            self._begin(number)

    def _begin(self, number: int) -> None:
        self.began[number] = self.now
        seconds = self.work(self.held[number][0], number) / self.case.perfs[number]
        heapq.heappush(self.events, (self.now + seconds, 0, number, 0))

    def work(self, request: int, number: int) -> float:
        """The work of the request on this worker, in seconds at perf 1."""
        return self.rows[request][1]

    def owners_of(self, request: int) -> Sequence[Candidate]:
        """The workers that have the request's prefix in their cache, by `policy.routing.affinity`."""
        return ()

    def _end(self, number: int) -> None:
        request = self.held[number].popleft()
        self.responses.append(self.now - self.rows[request][0])
        self.ended[number].append((request, self.now - self.began[number]))
        if self.held[number]:
            self._begin(number)
        if not self.news.period:
            heapq.heappush(self.events, (self.now + self.news.delay, 1, number, 0))

    # -- the router's view

    def hear(self, number: int) -> None:
        """Delivers a report to the router."""
        candidate, ended = self.candidates[number], self.ended[number]
        if not ended and not self.held[number]:
            return
        for request, seconds in ended:
            candidate.outstanding -= self.costs[request]
            self.service_times.learn(self.costs[request], self.case.perfs[number], seconds)
        self.given[number] -= len(ended)
        ended.clear()
        held = self.held[number]
        if not held:
            candidate.outstanding = 0.0
        self.known[number] = (held[0], self.began[number], self.now) if held else (-1, 0.0, 0.0)
        self._gauge(number)
        self.pump()

    def _gauge(self, number: int) -> None:
        candidate, (request, since, seen) = self.candidates[number], self.known[number]
        if request < 0:
            candidate.set_idle(self.service_times, self.news.within)
            return
        cost = self.costs[request]
        candidate.set_running(
            cost,
            queued_load=max(0.0, candidate.outstanding - cost),
            started_at=since,
            seen_at=seen,
            end_report_seconds=self.news.within,
            service_times=self.service_times,
        )

    def give(self, request: int) -> bool:
        """Dispatches the request, or leaves it in the queue."""
        allowed = None
        if self.hold:
            allowed = prefetch_limits(self.service_times, end_report_seconds=self.news.within)
        chosen = choose(
            self.candidates,
            self.costs[request],
            max_queue_time=math.inf,
            now=self.now,
            prefetch=allowed,
            cost_ratio=self.service_times.mean_ratio,
            owners=self.owners_of(request),
        )
        if isinstance(chosen, Choice):
            self.put(request, int(chosen.candidate.launch_id))
            return True
        assert isinstance(chosen, AllBusy)
        at = self.now + max(chosen.retry_seconds, 0.02)
        if at < self.look_at:
            self.look_at = at
            heapq.heappush(self.events, (at, 2, 0, 0))
        return False

    def pump(self) -> None:
        """First come, first served."""
        while self.line and self.give(self.line[0]):
            self.line.popleft()


class DeclaredOnly(Fleet):
    """Counts the whole declared cost until the end is reported, as for workers that do not report running requests."""

    def _gauge(self, number: int) -> None:
        self.candidates[number].set_parallel(full=False)


class FewestRequests(DeclaredOnly):
    """Production stacks' "least requests"."""

    def give(self, request: int) -> bool:
        """Chooses the worker with the fewest requests."""
        self.put(request, min(range(len(self.given)), key=self.given.__getitem__))
        return True


class PowerOfTwo(DeclaredOnly):
    """Draws two workers, and chooses the one with fewer requests."""

    def give(self, request: int) -> bool:
        """Chooses the better of two workers."""
        pair = random.Random(request).sample(range(len(self.given)), 2)
        self.put(request, min(pair, key=self.given.__getitem__))
        return True


class RoundRobin(DeclaredOnly):
    """Round robin."""

    def give(self, request: int) -> bool:
        """Chooses the next worker."""
        self.put(request, request % len(self.given))
        return True


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ratios to the central queue, medians over the seeds, with the lowest and highest."""

    case: str
    goal: float
    router: str
    p99: float
    low: float
    high: float
    mean: float

    def __str__(self) -> str:
        said = f"{self.case:<21}{self.router:<58}{self.p99:>6.2f}  ({self.low:.2f}-{self.high:.2f})"
        return f"{said}  {self.mean:>7.2f}   {self.goal:.2f}"


HEADING = f"{'case':<21}{'router, and what it knows':<58}{'p99':>6}{'(seeds)':>14}{'mean':>8}   goal of p99"

ROUTERS: tuple[tuple[str, type[Fleet], News, bool, float], ...] = (
    *((f"stoker, {news.name}", Fleet, news, True, COST_FACTOR) for news in NEWS),
    *((f"… nothing held back, {news.name}", Fleet, news, False, COST_FACTOR) for news in NEWS[1:]),
    *((f"… declared cost only, {news.name}", DeclaredOnly, news, False, COST_FACTOR) for news in NEWS[1:]),
    ("bound: stoker, costs exact, reports every 5 s", Fleet, NEWS[2], False, 1.0),
    (
        "bound: stoker, an end is known in no time",
        Fleet,
        News("", end_report_seconds=1e-3),
        True,
        COST_FACTOR,
    ),
    ("fewest requests, reports every 1 s", FewestRequests, NEWS[1], False, COST_FACTOR),
    ("power of two, reports every 1 s", PowerOfTwo, NEWS[1], False, COST_FACTOR),
    ("round robin", RoundRobin, NEWS[1], False, COST_FACTOR),
)


def table(count: int, seeds: int, *, only: str = "") -> Iterator[Row]:
    """Every router on every case, on the same arrivals."""
    for case in CASES:
        runs = [arrivals(case, count, seed) for seed in range(seeds)]
        best = [central(case, each) for each in runs]
        for name, kind, news, hold, factor in ROUTERS:
            if only not in name:
                continue
            made = [
                kind(case, each, declared(each, factor, seed), news, hold=hold).run()
                for seed, each in enumerate(runs)
            ]
            ratios = sorted(one.p99 / base.p99 for one, base in zip(made, best, strict=True))
            means = [one.mean / base.mean for one, base in zip(made, best, strict=True)]
            yield Row(
                case.name,
                case.goal,
                name,
                statistics.median(ratios),
                ratios[0],
                ratios[-1],
                statistics.median(means),
            )
