"""Settings of the simulated world: machines, prices, probabilities and delays, each with its source."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

EPOCH = 1_699_833_600.0
"""The world's zero in Unix seconds, a Monday at midnight UTC: the policy treats 0 as "never"."""

Z95 = 1.6448536
"""The normal distribution's 95th percentile, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal duration by its median and 95th percentile, seconds."""

    p50: float
    p95: float

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.log(self.p95 / self.p50) / Z95 if self.p95 > self.p50 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineKind:
    """A class of machines on the market."""

    name: str
    perf: float
    """Mean perf, in units of the reference worker."""
    dollars_per_hour: float
    """Mean price of its offers, $/h."""
    offers: int = 400
    """Number of machines of this kind."""
    outbid_per_hour: float | None = None
    """Rate per hour at which a running machine of this kind is outbid; None: that of the world."""
    taken: tuple[tuple[float, float], ...] = ()
    """Times, from and until, in which others bid more for all machines of this kind: running ones are lost at once, and
    none can be rented or started."""

    def is_taken(self, at: float) -> bool:
        """Whether others bid more for its machines now."""
        return any(begin <= at < end for begin, end in self.taken)


ONE_KIND = (MachineKind(name="RTX 4090", perf=1.0, dollars_per_hour=0.42, offers=600),)
"""The reference worker alone, so that only the scaling is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """Everything about the world except the requests."""

    kinds: tuple[MachineKind, ...] = ONE_KIND
    perf_spread: float = 0.1
    """Workers of a kind differ by at most this share of the mean, uniformly."""
    price_cv: float = 0.155
    """Coefficient of variation of the offers' prices, lognormal."""
    storage_share: float = 0.024
    """Price of a stopped worker's disk as a share of its running price: 50 GB at $0.15 per GB and month."""

    start: Spread = Spread(23.0, 46.0)
    """Cold to hot, seconds: 7,531 model loads on a serverless GPU fleet."""
    create_seconds: tuple[float, float] = (5.0, 60.0)
    """Create call to the first pulled byte, seconds; the GPU is not billed."""
    loading: Spread = Spread(180.0, 600.0)
    """Image pull, model load and benchmark, seconds; billed."""
    stop_seconds: float = 2.0
    operation_seconds: float = 0.5
    """Round trip of a marketplace call, seconds."""
    search_seconds: float = 1.0

    never_loads: float = 0.02
    """Probability that a new machine never becomes ready."""
    never_restarts: float = 0.02
    """Probability that a stopped machine's GPU is rented to another customer at the next start."""
    outbid_per_hour: float = 0.002
    """Rate per hour at which a running machine is outbid."""

    cold_pool: bool = True
    """If False, the market keeps no stopped machines: a stop releases, and every start is a create."""
    slots: int = 1
    """Requests that a worker serves at a time, with equal shares of its perf; 1 is first come, first served."""
    curve: tuple[tuple[int, float], ...] = ()
    """Throughput of a worker by the number of running requests, in any unit, from a measured server. Perf is the
    throughput at `slots`, where its benchmark ran; the last point is how many may run. Empty: perf at any number."""
    reports_concurrency: bool = True
    """Workers report that they serve `slots` requests at a time; official workers do not."""

    report_seconds: float = 1.0
    """Report period of workers that serve several requests at a time, seconds."""
    end_seconds: float = 0.05
    """Delay of an end report of a worker that serves one request at a time, seconds."""
    end_gap_seconds: float = 0.25
    """Least interval between two such reports, seconds."""
    end_report_seconds: float = 0.5
    """The delay that an engine assumes for both, seconds."""
    signal_seconds: float = 0.3
    """Delay from engine to policy, seconds."""
    late_share: float = 0.02
    """Share of batches that are late."""
    late_seconds: float = 5.0
    """Largest extra delay of a late batch, seconds."""
    lost_share: float = 0.002
    """Share of batches that are lost, as at an engine restart."""

    def but(self, **changes: object) -> Self:
        """The same world with these fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # the fields are this class's own

    @property
    def speeds(self) -> tuple[float, ...]:
        """Throughput as a share of perf by the number of running requests, from none to as many as may run."""
        if not self.curve:
            return (0.0, *(1.0 for _ in range(self.slots)))
        points = [(0, 0.0), *self.curve]
        made = [0.0]
        for (low, slow), (high, fast) in pairwise(points):
            made += [slow + (fast - slow) * (n - low) / (high - low) for n in range(low + 1, high + 1)]
        return tuple(each / made[self.slots] for each in made)


DEFAULT_WORLD = WorldSettings()


def calm(settings: WorldSettings) -> WorldSettings:
    """The same world without randomness in machines and prices, for which the clairvoyant bound is exact."""
    return settings.but(perf_spread=0.0, price_cv=0.0)
