"""Which offer to rent: best price-performance for what is still needed."""

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from policy.capacity.performance import PerfEstimates
from policy.state.observation import Offers
from policy.state.worker import MachineStats, Worker
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An offer and what it is expected to do."""

    group: Workergroup
    offer: Offer
    perf: float
    """Load/s; 0: nothing is known of any kind yet."""
    learning: bool
    """Chosen among kinds that this workergroup has not tried yet."""

    def __repr__(self) -> str:
        return f"<Placement {self.offer.kind} offer {self.offer.id} ${self.offer.dph_total:.2f}/h>"


_Key = tuple[float, float, float, float, int]


class Ranking:
    """Offers for some workergroups, to be taken one after the other for a need that falls with each.

    A machine of eight GPUs is not rented for a trickle: what it does beyond the need is not useful now. While a workergroup
    has tried fewer than `test_workers` kinds, kinds it has not tried come first: this is how it learns, on machines that
    it needs anyway.

    With every offer that is taken the others are worth less or the same, never more. So they are put in order once, and
    the first one is looked at again before it is taken.
    """

    def __init__(
        self,
        groups: Iterable[Workergroup],
        offers: Iterable[Offers],
        *,
        perfs: PerfEstimates,
        workers: Iterable[Worker],
    ) -> None:
        by_group = {each.workergroup_id: each.offers for each in offers}
        workers = tuple(workers)
        self._perfs = perfs
        self._tried: dict[int, set[str]] = {}
        self._comes_up: dict[tuple[int, str], float] = {}
        self._places: list[Placement] = []
        self._line: list[tuple[_Key, int]] = []
        """Worst first; the second is the place's number."""
        self._any_counts: bool | None = None
        """Whether the line was made for a need of 0, to which any capacity is useful."""
        for group in groups:
            listed = by_group.get(group.id, ())
            ratio = _perf_per_dlperf(group.id, listed, perfs)
            self._tried[group.id] = set(kinds_tried(group.id, perfs.learned, workers))
            for offer in listed:
                perf = perfs.kind(group.id, offer.kind) or (offer.dlperf or 0.0) * ratio or perfs.mean
                self._places.append(Placement(group=group, offer=offer, perf=perf, learning=False))

    def take(self, need: float, eligible: Callable[[Placement], bool]) -> Placement | None:
        """The best one, or None if none is left; what is not eligible is never looked at again.

        `need` is the capacity still wanted, load/s: not more than at the last call. 0 or less counts any as useful.
        """
        if self._any_counts is not (need <= 0):
            left = range(len(self._places)) if self._any_counts is None else [each for _, each in self._line]
            self._line = sorted((self._key(number, need), number) for number in left)
            self._any_counts = need <= 0
        while self._line:
            key, number = self._line.pop()
            place = self._places[number]
            if not eligible(place):
                continue
            if (now := self._key(number, need)) < key:
                insort(self._line, (now, number))
                continue
            learning = self._is_new(place)
            self._tried[place.group.id].add(place.offer.kind)
            return replace(place, learning=learning)
        return None

    def _key(self, number: int, need: float) -> _Key:
        place = self._places[number]
        perf, offer = place.perf, place.offer
        useful = min(perf, need) if perf > 0 and need > 0 else perf
        price = max(offer.dph_total, 1e-6)
        # nothing is known: the cheapest, because a wrong guess then costs least
        score = (useful or 1.0) / price * self._chance(place)
        return (float(self._is_new(place)), score, -price, -float(offer.id), -number)

    def _is_new(self, place: Placement) -> bool:
        tried = self._tried[place.group.id]
        return len(tried) < place.group.test_workers and place.offer.kind not in tried

    def _chance(self, place: Placement) -> float:
        """The chance that a launch of this kind becomes ready, starting from certainty."""
        which = (place.group.id, place.offer.kind)
        known = self._comes_up.get(which)
        if known is None:
            record = self._perfs.learned.kind(*which)
            known = 1.0 if record is None else (record.boots + 1) / (record.boots + record.failures + 1)
            self._comes_up[which] = known
        return known


def kinds_tried(workergroup_id: int, learned: MachineStats, workers: Iterable[Worker]) -> frozenset[str]:
    """Kinds of which this workergroup has, or had, a worker."""
    tried = {
        record.kind
        for record in learned.kinds
        if record.workergroup_id == workergroup_id and (record.samples > 0 or record.failures > 0)
    }
    return frozenset(tried.union(each.kind for each in workers if each.workergroup_id == workergroup_id))


def price_performance(worker: Worker, perfs: PerfEstimates) -> float:
    """Load/s per $/h of a worker: what scaling up takes first and scaling down releases last."""
    return perfs.worker(worker) / max(worker.dollars_per_hour, 1e-6)


def _perf_per_dlperf(workergroup_id: int, offers: Iterable[Offer], perfs: PerfEstimates) -> float:
    """How the marketplace's benchmark translates to this workload, by the kinds for which both are known; 0: none."""
    ratios = {}
    for offer in offers:
        known = perfs.kind(workergroup_id, offer.kind)
        if known > 0 and offer.dlperf:
            ratios[offer.kind] = known / offer.dlperf
    return sum(ratios.values()) / len(ratios) if ratios else 0.0
