"""A simulated market: it always offers another machine of each known kind, at the kind's usual price."""

import re
from collections.abc import Iterator

from policy.state.observation import Observation, Offers
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Offer

_KIND = re.compile(r"(\d+)x (.*)")


def assumed_offers(seen: Observation, now: float) -> tuple[Offers, ...]:
    """A new search result per workergroup. The ids belong to no real offers."""
    results = []
    for number, group in enumerate(seen.workergroups):
        listed: list[Offer] = []
        for offer in _kinds(seen, group.id):
            first = 1 + (number * 1000 + len(listed)) * DEFAULT_TUNING.whatif_offers_per_kind_max
            listed += [
                offer.model_copy(update={"id": first + each, "machine_id": 0})
                for each in range(DEFAULT_TUNING.whatif_offers_per_kind_max)
            ]
        results.append(
            Offers(workergroup_id=group.id, searched_at=now, offers=tuple(listed), revision=group.revision)
        )
    return tuple(results)


def _kinds(seen: Observation, group_id: int) -> Iterator[Offer]:
    """One offer per kind, at the average price paid, otherwise at the lowest price offered."""
    offered: dict[str, Offer] = {}
    for found in seen.offers:
        for offer in found.offers if found.workergroup_id == group_id else ():
            known = offered.get(offer.kind)
            if known is None or offer.dph_total < known.dph_total:
                offered[offer.kind] = offer
    prices: dict[str, list[float]] = {}
    for worker in seen.workers:
        if worker.workergroup_id == group_id and worker.dollars_per_hour > 0:
            prices.setdefault(worker.kind, []).append(worker.dollars_per_hour)
    paid = {kind: sum(each) / len(each) for kind, each in prices.items()}
    for record in seen.learned.kinds:
        if record.workergroup_id == group_id and record.samples and record.dollars_per_hour > 0:
            paid[record.kind] = record.dollars_per_hour
    for kind in sorted({*offered, *paid}):
        listed = offered.get(kind) or _offer(kind)
        if listed is not None:
            yield listed.model_copy(update={"dph_total": paid[kind]}) if kind in paid else listed


def _offer(kind: str) -> Offer | None:
    match = _KIND.fullmatch(kind)
    return Offer(id=1, num_gpus=int(match[1]), gpu_name=match[2]) if match else None
