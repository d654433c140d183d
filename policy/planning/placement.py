"""Which offer to rent: the best price-performance for the capacity that is still needed."""

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from policy.capacity.boot_time import seconds_on
from policy.capacity.performance import PerfEstimates
from policy.state.observation import Offers
from policy.state.worker import MachineStats, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An offer for a workergroup and its expected perf."""

    group: Workergroup
    offer: Offer
    perf: float
    """Load/s; 0: unknown."""
    is_new_kind: bool = False
    """The workergroup has had no worker of this machine kind."""
    boot_seconds: float = 0.0
    """Expected time until it serves, which is billed."""

    def __repr__(self) -> str:
        return f"<Placement {self.offer.kind} offer {self.offer.id} ${self.offer.dph_total:.2f}/h>"


_Key = tuple[float, float, float, float, int]


@dataclass(slots=True)
class Ranking:
    """Offers of some workergroups in the order in which they are worth renting.

    The price includes the dollars of the boot, by what the host or its kind has needed before. Only the capacity that is
    still needed counts, so a machine with eight GPUs is not rented for little load. While a
    workergroup has tried fewer than `test_workers` machine kinds, new kinds come first.

    A falling need makes offers worth less, never more. So they are sorted once, and only the first is rated again.
    """

    placements: list[Placement]
    kinds_tried: dict[int, set[str]]
    perfs: PerfEstimates
    boot_spread_seconds: float
    _success_rates: dict[tuple[int, str], float] = field(default_factory=dict)
    _sorted: list[tuple[_Key, int]] = field(default_factory=list)
    """Worst first; the second item is the index of the placement."""
    _any_perf_counts: bool | None = None
    """Whether the order was made for a need of 0, which any perf satisfies; None: not sorted yet."""

    @classmethod
    def of(
        cls,
        groups: Iterable[Workergroup],
        offers: Iterable[Offers],
        *,
        perfs: PerfEstimates,
        workers: Iterable[Worker],
        tuning: Tuning = DEFAULT_TUNING,
    ) -> "Ranking":
        """The offers that were found for these workergroups."""
        by_group = {each.workergroup_id: each.offers for each in offers}
        workers = tuple(workers)
        tried: dict[int, set[str]] = {}
        placements = []
        for group in groups:
            listed = by_group.get(group.id, ())
            ratio = _perf_per_dlperf(group.id, listed, perfs)
            tried[group.id] = set(kinds_tried(group.id, perfs.learned, workers))
            for offer in listed:
                perf = perfs.kind(group.id, offer.kind) or (offer.dlperf or 0.0) * ratio or perfs.mean
                boot = seconds_on(offer, group.id, perfs.learned, tuning)
                placements.append(Placement(group=group, offer=offer, perf=perf, boot_seconds=boot))
        return cls(placements, tried, perfs, tuning.boot_spread_seconds)

    def take(self, need: float, eligible: Callable[[Placement], bool]) -> Placement | None:
        """Remove and return the best eligible placement; None: none is left. Ineligible ones are removed for good.

        `need` is the capacity still needed, load/s, at most that of the previous call. At 0 or less any perf counts.
        """
        if self._any_perf_counts is not (need <= 0):
            left = (
                range(len(self.placements))
                if self._any_perf_counts is None
                else [each for _, each in self._sorted]
            )
            self._sorted = sorted((self._key(number, need), number) for number in left)
            self._any_perf_counts = need <= 0
        while self._sorted:
            key, number = self._sorted.pop()
            placement = self.placements[number]
            if not eligible(placement):
                continue
            if (now := self._key(number, need)) < key:
                insort(self._sorted, (now, number))
                continue
            is_new_kind = self._is_new_kind(placement)
            self.kinds_tried[placement.group.id].add(placement.offer.kind)
            return replace(placement, is_new_kind=is_new_kind)
        return None

    def _key(self, number: int, need: float) -> _Key:
        placement = self.placements[number]
        perf, offer = placement.perf, placement.offer
        useful = min(perf, need) if perf > 0 and need > 0 else perf
        # The boot is billed as well: its dollars are spread over the service that follows.
        price = max(offer.dph_total, 1e-6) * (1 + placement.boot_seconds / self.boot_spread_seconds)
        # With unknown perf the cheapest offer wins: a wrong guess then costs least.
        score = (useful or 1.0) / price * self._success_rate(placement)
        return (float(self._is_new_kind(placement)), score, -price, -float(offer.id), -number)

    def _is_new_kind(self, placement: Placement) -> bool:
        tried = self.kinds_tried[placement.group.id]
        return len(tried) < placement.group.test_workers and placement.offer.kind not in tried

    def _success_rate(self, placement: Placement) -> float:
        """Share of the launches of this kind that became ready; 1 without launches."""
        key = (placement.group.id, placement.offer.kind)
        rate = self._success_rates.get(key)
        if rate is None:
            record = self.perfs.learned.kind(*key)
            rate = 1.0 if record is None else (record.boots + 1) / (record.boots + record.failures + 1)
            self._success_rates[key] = rate
        return rate


def kinds_tried(workergroup_id: int, learned: MachineStats, workers: Iterable[Worker]) -> frozenset[str]:
    """Machine kinds of which this workergroup has or had a worker."""
    tried = {
        record.kind
        for record in learned.kinds
        if record.workergroup_id == workergroup_id and (record.boots or record.samples or record.failures)
    }
    return frozenset(tried.union(each.kind for each in workers if each.workergroup_id == workergroup_id))


def price_performance(worker: Worker, perfs: PerfEstimates) -> float:
    """Load/s per $/h of a worker. Scaling up takes the highest first, scaling down the lowest."""
    return perfs.worker(worker) / max(worker.dollars_per_hour, 1e-6)


def _perf_per_dlperf(workergroup_id: int, offers: Iterable[Offer], perfs: PerfEstimates) -> float:
    """Mean ratio of perf to the marketplace's `dlperf` benchmark, over kinds with both; 0 without any."""
    ratios = {}
    for offer in offers:
        perf = perfs.kind(workergroup_id, offer.kind)
        if perf > 0 and offer.dlperf:
            ratios[offer.kind] = perf / offer.dlperf
    return sum(ratios.values()) / len(ratios) if ratios else 0.0
