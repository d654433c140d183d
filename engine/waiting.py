"""The line of requests that wait for a worker: first come, first served, by the first call of each request."""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from engine.workers import KnownWorker


class Place:
    """One request that an endpoint knows: waiting, or given to a worker and remembered for a re-route."""

    __slots__ = (
        "again",
        "arrived_at",
        "avoid",
        "cost",
        "finished",
        "given_at",
        "paused_until",
        "replay_timeout",
        "reqnum",
        "request_idx",
        "rerouted_at",
        "seen_at",
        "succeeded",
        "took_s",
        "turned_away",
        "waited_s",
        "wake",
        "worker",
    )

    def __init__(self, request_idx: int, cost: float, now: float, replay_timeout: float) -> None:
        self.request_idx = request_idx
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

    @property
    def order(self) -> tuple[float, int]:
        """Its place in the line."""
        return (self.arrived_at, self.request_idx)

    def __repr__(self) -> str:
        where = (
            f"given to {self.worker.launch_id}" if self.worker else "held" if self.wake else "between calls"
        )
        return f"<Place {self.request_idx} {where}>"


def _order(place: Place) -> tuple[float, int]:
    return place.order


class Line:
    """Places in the order of their first arrival. Only held ones can be served; the others keep their turn."""

    __slots__ = ("_held", "_places", "load")

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._held: list[Place] = []
        self.load = 0.0
        """Summed cost of everything that waits."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __repr__(self) -> str:
        return f"<Line of {len(self._places)}, {len(self._held)} held, {self.load:g} load>"

    @property
    def held_count(self) -> int:
        """How many calls are held open."""
        return len(self._held)

    @property
    def first(self) -> Place | None:
        """Who has waited longest."""
        return self._places[0] if self._places else None

    def held(self) -> list[Place]:
        """Those that can be served now, first come first."""
        return list(self._held)

    def first_held(self) -> Place | None:
        """The first that can be served now."""
        return self._held[0] if self._held else None

    def add(self, place: Place) -> None:
        """Line up, at the turn of its first arrival."""
        insort(self._places, place, key=_order)
        self.load += place.cost

    def remove(self, place: Place) -> None:
        """Leave the line, served or not."""
        self._drop(self._places, place)
        self.load = self.load - place.cost if self._places else 0.0
        self.let_go(place)

    def hold(self, place: Place, wake: Callable[[bool], None]) -> None:
        """A call is now held open for it; one held before is ended."""
        before, place.wake = place.wake, wake
        if before is None:
            insort(self._held, place, key=_order)
        else:
            before(False)

    def let_go(self, place: Place) -> None:
        """No call is held open for it any more; it keeps its turn."""
        if place.wake is not None:
            place.wake = None
            self._drop(self._held, place)

    def position(self, place: Place) -> int:
        """How many are before it."""
        return bisect_left(self._places, place.order, key=_order)

    def expired(self, now: float) -> list[Place]:
        """Those that have not come again within their replay timeout."""
        return [p for p in self._places if p.wake is None and now - p.seen_at > p.replay_timeout]

    @staticmethod
    def _drop(places: list[Place], place: Place) -> None:
        at = bisect_left(places, place.order, key=_order)
        if at < len(places) and places[at] is place:
            del places[at]
