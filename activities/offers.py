"""Which of the found offers are worth a place in a history: the best ones, of as many machine kinds as there are."""

from collections.abc import Iterable

from stoker_wire.market import Offer


def trimmed(offers: Iterable[Offer], limit: int) -> tuple[Offer, ...]:
    """At most `limit` offers, in rounds: the best of every kind, then the second best of every kind, …

    The order within a kind is kept, it is the market's (price-performance). A plain cut would leave only the kind
    that the market likes best, and then nothing else could ever be learned.
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
