"""What the simulated world is like: machines, prices, chances and delays, each with where it comes from."""

import math
from dataclasses import dataclass, replace
from typing import Self

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

    @property
    def mean(self) -> float:
        """Seconds."""
        return self.p50 * math.exp(self.sigma**2 / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineKind:
    """A class of machines on the market."""

    name: str
    perf: float
    """Mean, in units of the reference worker."""
    dollars_per_hour: float
    """Mean price of its offers."""
    offers: int = 400
    """How many machines of it there are."""


KINDS = (
    MachineKind(name="RTX 3090", perf=1.0, dollars_per_hour=0.21),
    MachineKind(name="RTX 4090", perf=2.0, dollars_per_hour=0.42),
    MachineKind(name="RTX 5090", perf=3.0, dollars_per_hour=0.48),
    MachineKind(name="H100", perf=6.0, dollars_per_hour=1.90),
)
"""Prices as seen on a public marketplace, 2025-2026; perf of a 7B language model, relative."""

ONE_KIND = (MachineKind(name="RTX 4090", perf=1.0, dollars_per_hour=0.42, offers=600),)
"""The reference worker alone: what is compared is the scaling and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """Everything about the world but the requests."""

    kinds: tuple[MachineKind, ...] = ONE_KIND
    perf_spread: float = 0.1
    """Workers of a kind differ by at most so much around the mean, evenly."""
    price_cv: float = 0.155
    """Coefficient of variation of the offers' prices, lognormal."""
    storage_share: float = 0.024
    """A stopped worker's disk costs so much of its running price: 50 GB at $0.15 per GB and month."""

    start: Spread = Spread(23.0, 46.0)
    """Cold to hot: 7,531 model loads on a serverless GPU fleet."""
    create_seconds: tuple[float, float] = (5.0, 60.0)
    """Create call to the first pulled byte; the GPU is not billed."""
    loading: Spread = Spread(180.0, 600.0)
    """Image pull, model load and benchmark; billed."""
    stop_seconds: float = 2.0
    operation_seconds: float = 0.5
    """A marketplace call's round trip."""
    search_seconds: float = 1.0

    never_loads: float = 0.02
    """Chance that a new machine never becomes ready."""
    never_restarts: float = 0.02
    """Chance that a stopped machine's GPU is rented to somebody else when it is wanted again."""
    outbid_per_hour: float = 0.002
    """Chance per hour that a running machine is taken away."""

    cold_pool: bool = True
    """False: this market keeps no stopped machines; stopping releases, and every start is a create."""
    slots: int = 1
    """Requests that a worker serves at a time, sharing its perf evenly; 1 is first come, first served."""
    cost_error: float = 1.0
    """Requests declare their work wrong by up to this factor, either way; 1 is exact."""

    report_seconds: float = 1.0
    """Workers that serve several requests at a time report once in so long: what ended is known only then."""
    end_seconds: float = 0.05
    """One that serves one at a time tells of an end after so long …"""
    end_gap_seconds: float = 0.25
    """… and not again before so long has passed."""
    ends_told_seconds: float = 0.5
    """What an engine takes for granted of both."""
    signal_seconds: float = 0.3
    """Engine to policy, on a good day."""
    late_share: float = 0.02
    """So many batches are late …"""
    late_seconds: float = 5.0
    """… by up to so much."""
    lost_share: float = 0.002
    """So many batches never arrive: an engine restarted."""

    def but(self, **changes: object) -> Self:
        """The same world with these changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # the fields are this class's own

    @property
    def reference(self) -> MachineKind:
        """The kind with the best price-performance: what a mean load of N workers is counted in."""
        return max(self.kinds, key=lambda kind: kind.perf / kind.dollars_per_hour)


DEFAULT_WORLD = WorldSettings()


def calm(settings: WorldSettings) -> WorldSettings:
    """The same world without chance in machines and prices: what the clairvoyant bound is exact for."""
    return settings.but(perf_spread=0.0, price_cv=0.0)
