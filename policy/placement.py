"""Which offer to rent: best price-performance for what is still needed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy.capacity import Perfs
from policy.fleet import Learned, Worker
from policy.observation import Offers
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


def place(
    groups: Iterable[Workergroup],
    offers: Iterable[Offers],
    *,
    need: float,
    perfs: Perfs,
    workers: Iterable[Worker],
    eligible: Callable[[Offer], bool],
) -> Placement | None:
    """The offer with the best useful price-performance, or None if no offer is eligible.

    `need` is the capacity still wanted, load/s: what a machine does beyond it is not useful now, so a machine of eight
    GPUs is not rented for a trickle. 0 counts any capacity as useful. While a workergroup has tried fewer than
    `test_workers` kinds, kinds it has not tried come first: this is how it learns, on machines that it needs anyway.
    """
    workers = tuple(workers)
    by_group = {each.workergroup_id: each.offers for each in offers}
    best: tuple[tuple[float, ...], Placement] | None = None
    for group in groups:
        listed = by_group.get(group.id, ())
        ratio = _perf_per_dlperf(group.id, listed, perfs)
        tried = kinds_tried(group.id, perfs.learned, workers)
        learning = len(tried) < group.test_workers
        for offer in listed:
            if not eligible(offer):
                continue
            perf = perfs.kind(group.id, offer.kind) or (offer.dlperf or 0.0) * ratio or perfs.mean
            new = learning and offer.kind not in tried
            useful = min(perf, need) if perf > 0 and need > 0 else perf
            price = max(offer.dph_total, 1e-6)
            # nothing is known: the cheapest, because a wrong guess then costs least
            score = (useful or 1.0) / price * _comes_up(group.id, offer.kind, perfs.learned)
            key = (float(new), score, -price, -float(offer.id))
            if best is None or key > best[0]:
                best = (key, Placement(group=group, offer=offer, perf=perf, learning=new))
    return best[1] if best is not None else None


def kinds_tried(workergroup_id: int, learned: Learned, workers: Iterable[Worker]) -> frozenset[str]:
    """Kinds of which this workergroup has, or had, a worker."""
    tried = {
        record.kind
        for record in learned.kinds
        if record.workergroup_id == workergroup_id and (record.samples > 0 or record.failures > 0)
    }
    return frozenset(tried.union(each.kind for each in workers if each.workergroup_id == workergroup_id))


def price_performance(worker: Worker, perfs: Perfs) -> float:
    """Load/s per $/h of a worker: what scaling up takes first and scaling down releases last."""
    return perfs.worker(worker) / max(worker.dollars_per_hour, 1e-6)


def _perf_per_dlperf(workergroup_id: int, offers: Iterable[Offer], perfs: Perfs) -> float:
    """How the marketplace's benchmark translates to this workload, by the kinds for which both are known; 0: none."""
    ratios = {}
    for offer in offers:
        known = perfs.kind(workergroup_id, offer.kind)
        if known > 0 and offer.dlperf:
            ratios[offer.kind] = known / offer.dlperf
    return sum(ratios.values()) / len(ratios) if ratios else 0.0


def _comes_up(workergroup_id: int, kind: str, learned: Learned) -> float:
    """The chance that a launch of this kind becomes ready, starting from certainty."""
    record = learned.kind(workergroup_id, kind)
    return 1.0 if record is None else (record.boots + 1) / (record.boots + record.failures + 1)
