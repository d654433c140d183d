"""Which worker has a client's prefix in its cache: weighted rendezvous hashing. Pure.

Every engine computes the same owners of an affinity key from the ready workers alone. When a worker leaves, only its own
keys move; when it returns, they move back.
"""

import hashlib
import heapq
import math
from collections.abc import Collection, Sequence
from functools import lru_cache

from policy.routing.worker_selection import Candidate
from policy.tuning import DEFAULT_TUNING

_BITS = (1 << 64) - 1
_UNIT = float(1 << 52)
_LAUNCHES_KEPT = 16_384


def affinity_point(key: str) -> int:
    """The affinity key as a number for `owners`; 0: no key."""
    return _hash64(key) or 1 if key else 0


def owners(candidates: Sequence[Candidate], point: int, avoid: Collection[str] = ()) -> Sequence[Candidate]:
    """The workers that serve the requests of this affinity key, the preferred one first; empty without a key.

    The next ones serve what the first has no time for, so that they have the prefix, too. A worker of twice the perf
    owns twice as many keys. Source of the formula: Schindelhauer and Schomaker, "Weighted distributed hash tables",
    2005: the highest perf / -ln(hash) wins.
    """
    if not point:
        return ()
    log, launch_point = math.log, _launch_point  # one plain loop: it runs for each request with a key
    scored = [
        (
            perf / -log(((((point * launch_point(each.launch_id)) & _BITS) >> 12) + 0.5) / _UNIT),
            each.launch_id,
            each,
        )
        for each in candidates
        if (perf := each.perf) > 0.0 and each.launch_id not in avoid
    ]
    return [candidate for *_, candidate in heapq.nlargest(DEFAULT_TUNING.affinity_owners, scored)]


@lru_cache(maxsize=_LAUNCHES_KEPT)
def _launch_point(launch_id: str) -> int:
    """An odd multiplier: the high bits of its product with a key's point are the pair's hash."""
    return _hash64(launch_id) | 1


def _hash64(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
