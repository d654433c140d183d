"""The marketplace of the simulated world: a finite stock of machines with seeded prices and faults."""

import math
import random
from dataclasses import dataclass

from simulation.settings import MachineKind, Spread, WorldSettings
from stoker_wire.market import Offer

PERF_UNIT = 100.0
"""Load/s of a machine of perf 1: tokens per second of a small language model, so rounding constants stay small."""


@dataclass(slots=True)
class Stocked:
    """One machine of the stock."""

    offer: Offer
    perf: float
    """Its perf by benchmark, load/s."""
    kind: MachineKind
    free: bool = True


class Stock:
    """Machines for rent. Every random value comes from one seeded stream."""

    def __init__(self, settings: WorldSettings, seed: int) -> None:
        self.settings = settings
        self._chance = random.Random(f"{seed} market")
        self.machines: dict[int, Stocked] = {}
        number = 0
        for kind in settings.kinds:
            bias = self._chance.uniform(0.8, 1.25)
            for _ in range(kind.offers):
                number += 1
                price = kind.dollars_per_hour * _lognormal_mean_1(self._chance, settings.price_cv)
                spread = 1.0 + self._chance.uniform(-settings.perf_spread, settings.perf_spread)
                offer = Offer(
                    id=number,
                    machine_id=number,
                    host_id=number,
                    gpu_name=kind.name,
                    num_gpus=1,
                    gpu_ram=24_000,
                    dph_total=price,
                    dph_base=price,
                    storage_cost=0.15,
                    dlperf=kind.perf * 20.0 * bias,
                    reliability=0.99,
                )
                self.machines[number] = Stocked(offer, kind.perf * PERF_UNIT * spread, kind)
        self._by_value = sorted(self.machines, key=lambda n: (self._listing_order(n), n))

    def _listing_order(self, number: int) -> float:
        offer = self.machines[number].offer
        return -(offer.dlperf or 0.0) / offer.dph_total

    def search(self, now: float, limit: int = 64) -> tuple[Offer, ...]:
        """Free offers of every kind, best first by the market's own benchmark per dollar."""
        found: list[Offer] = []
        share = max(1, limit // len(self.settings.kinds))
        taken: dict[str, int] = {}
        for number in self._by_value:
            stocked = self.machines[number]
            if (
                stocked.free
                and not stocked.kind.is_taken(now)
                and taken.get(stocked.offer.gpu_name, 0) < share
            ):
                taken[stocked.offer.gpu_name] = taken.get(stocked.offer.gpu_name, 0) + 1
                found.append(stocked.offer)
        return tuple(found)

    def rent(self, offer_id: int, now: float) -> Stocked | None:
        """The machine, or None if it was rented by another customer."""
        stocked = self.machines.get(offer_id)
        if stocked is None or not stocked.free or stocked.kind.is_taken(now):
            return None
        stocked.free = False
        return stocked

    def give_back(self, offer_id: int) -> None:
        """Returns the machine to the stock."""
        self.machines[offer_id].free = True

    # -- random values

    def seconds(self, spread: Spread) -> float:
        """One draw of a duration."""
        return spread.p50 * math.exp(spread.sigma * self._chance.gauss(0.0, 1.0))

    def between(self, low: float, high: float) -> float:
        """One uniform draw."""
        return self._chance.uniform(low, high)

    def happens(self, chance: float) -> bool:
        """Whether the event happens; always draws, so that settings do not shift the stream."""
        return self._chance.random() < chance

    def wait(self, per_hour: float) -> float:
        """Seconds to the next such event, infinite at rate 0."""
        drawn = self._chance.expovariate(1.0)
        return drawn * 3600.0 / per_hour if per_hour > 0 else math.inf


def _lognormal_mean_1(chance: random.Random, cv: float) -> float:
    sigma = math.sqrt(math.log(1.0 + cv * cv))
    return math.exp(chance.gauss(-sigma * sigma / 2, sigma) if sigma > 0 else 0.0)
