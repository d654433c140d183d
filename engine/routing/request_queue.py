"""The line of requests that wait for a worker: in the order of their first calls, but `policy.routing.queue_discipline` says whose turn it is."""

import math
from collections.abc import Callable, Iterator

from engine.routing.worker import KnownWorker
from policy.routing.queue_discipline import DeadlineQueue, SortKey


class QueuedRequest:
    """One request that an endpoint knows: waiting, or given to a worker and remembered for a re-route."""

    __slots__ = (
        "again",
        "arrived_at",
        "avoid",
        "cost",
        "finished",
        "given_at",
        "key",
        "paused_until",
        "refusal",
        "replay_timeout",
        "reqnum",
        "request_idx",
        "rerouted_at",
        "seen_at",
        "succeeded",
        "took_s",
        "turned_away",
        "verdict_on",
        "waited_s",
        "wake",
        "worker",
    )

    def __init__(
        self, request_idx: int, cost: float, now: float, replay_timeout: float, fingerprint: str = ""
    ) -> None:
        self.request_idx = request_idx
        self.key = fingerprint or f"#{request_idx}"
        """What all copies of the request have in common, as far as the client tells it."""
        self.cost = cost
        self.arrived_at = now
        self.seen_at = now
        """Last call, or the end of the last held call."""
        self.replay_timeout = replay_timeout
        self.wake: Callable[[bool], None] | None = None
        """Ends the held call, saying whether a worker was given; None between two calls."""
        self.worker: KnownWorker | None = None
        self.given_at = 0.0
        self.reqnum = 0
        self.finished = False
        """The worker itself said that the request ended: it answers, whatever its client says."""
        self.avoid: frozenset[str] = frozenset()
        """Launch ids of workers that failed this request."""
        self.rerouted_at = -math.inf
        """When it last came again after having been given a worker."""
        self.paused_until = -math.inf
        self.turned_away = False
        """The line was full when it came."""
        self.again = False
        """It brought an index that this engine does not know: another one, or one before a restart, has counted it."""
        self.waited_s: float | None = None
        """From its arrival to the first worker."""
        self.took_s: float | None = None
        """From the last worker to that worker's word that it ended."""
        self.succeeded = False
        self.refusal = ""
        """Why it is sent to no worker any more."""
        self.verdict_on: tuple[KnownWorker, float] | None = None
        """A worker that failed it, and when: it waits until it is known whether that worker broke."""

    @property
    def order(self) -> SortKey:
        """Its place in the line: one that had its turn, and whose worker failed it, goes before all others."""
        return (self.waited_s is None, self.arrived_at, self.request_idx)

    def __repr__(self) -> str:
        where = (
            f"given to {self.worker.launch_id}" if self.worker else "held" if self.wake else "between calls"
        )
        return f"<QueuedRequest {self.request_idx} {where}>"


def _order(place: QueuedRequest) -> SortKey:
    return place.order


class RequestQueue:
    """Everybody who waits. Only held ones can be served; the others keep their turn."""

    __slots__ = ("_held", "_places", "load")

    def __init__(self) -> None:
        self._places: DeadlineQueue[QueuedRequest] = DeadlineQueue(_order)
        self._held: DeadlineQueue[QueuedRequest] = DeadlineQueue(_order)
        self.load = 0.0
        """Summed cost of everything that waits."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[QueuedRequest]:
        return iter(self._places)

    def __repr__(self) -> str:
        return f"<RequestQueue of {len(self._places)}, {len(self._held)} held, {self.load:g} load>"

    @property
    def held_count(self) -> int:
        """How many calls are held open."""
        return len(self._held)

    @property
    def oldest(self) -> QueuedRequest | None:
        """Who came first."""
        return self._places.oldest

    def held(self) -> list[QueuedRequest]:
        """Those that can be served now, in the order of their coming."""
        return list(self._held)

    def in_service_order(self, late_cutoff: float) -> Iterator[QueuedRequest]:
        """Those that can be served now, whose turn it is first; late is who came before that moment."""
        return self._held.in_service_order(late_cutoff)

    def add(self, place: QueuedRequest) -> None:
        """RequestQueue up, at the turn of its first arrival."""
        self._places.add(place)
        self.load += place.cost

    def remove(self, place: QueuedRequest) -> None:
        """Leave the line unserved."""
        self._places.remove(place)
        self.load = self.load - place.cost if self._places else 0.0
        self.let_go(place)

    def serve(self, place: QueuedRequest, late_cutoff: float) -> None:
        """Leave the line with a worker."""
        if place.wake is not None:
            self._held.serve(place, late_cutoff)
            place.wake = None
        self.remove(place)

    def hold(self, place: QueuedRequest, wake: Callable[[bool], None]) -> None:
        """A call is now held open for it; one held before is ended."""
        before, place.wake = place.wake, wake
        if before is None:
            self._held.add(place)
        else:
            before(False)

    def let_go(self, place: QueuedRequest) -> None:
        """No call is held open for it any more; it keeps its turn."""
        if place.wake is not None:
            place.wake = None
            self._held.remove(place)

    def position(self, place: QueuedRequest, late_cutoff: float) -> int:
        """How many are to be served before it."""
        return self._places.position(place, late_cutoff)

    def expired(self, now: float) -> list[QueuedRequest]:
        """Those that have not come again within their replay timeout."""
        return [p for p in self._places if p.wake is None and now - p.seen_at > p.replay_timeout]
