"""Trims search results for the workflow history: the best offers of every machine kind."""

from collections.abc import Iterable

from stoker_wire.market import Offer


def trimmed(offers: Iterable[Offer], limit: int) -> tuple[Offer, ...]:
    """At most `limit` offers: the best of every kind, then the second best of every kind, and so on.

    The market's order within a kind (price-performance) is kept. The first `limit` offers might all be of one kind, and
    the planner could not compare kinds.
    """
    by_kind: dict[str, list[Offer]] = {}
    for offer in offers:
        by_kind.setdefault(offer.kind, []).append(offer)
    chosen: list[Offer] = []
    depth = 0
    while len(chosen) < limit:
        layer = [kind[depth] for kind in by_kind.values() if depth < len(kind)]
        if not layer:
            break
        chosen.extend(layer[: limit - len(chosen)])
        depth += 1
    return tuple(chosen)
