"""Weighted fair queueing over priority classes. Within a class the order is that of `DeadlineQueue`.

Each service moves its class ahead by the cost of the request over the weight of the class, and the class that is least
ahead is served next. A class that was empty starts level with the others, so it cannot save up. With one class the order
is exactly that of its `DeadlineQueue`.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from policy.routing.queue_discipline import DeadlineQueue, SortKey
from policy.tuning import DEFAULT_TUNING

T = TypeVar("T")

_COST_RATIO_MAX = 100.0
"""A service counts at least a hundredth and at most a hundred times the mean cost. So costs of zero cannot keep the
other classes waiting, and one huge cost does not set its class back for long."""
_MEAN_OVER = 1000
"""Services over which the mean cost is smoothed."""


class PriorityQueue(Generic[T]):
    """A `DeadlineQueue` for each class. Class 0 has the highest weight, each next one a fixed share of it."""

    __slots__ = ("_ahead", "_class_of", "_classes", "_cost_of", "_key", "_mean_cost", "_services")

    def __init__(
        self, key: Callable[[T], SortKey], *, class_of: Callable[[T], int], cost_of: Callable[[T], float]
    ) -> None:
        self._key = key
        self._class_of = class_of
        self._cost_of = cost_of
        self._classes: dict[int, DeadlineQueue[T]] = {}
        """Classes with requests, in no order."""
        self._ahead: dict[int, float] = {}
        """How far a class is ahead of the least served one with requests, in cost over weight."""
        self._mean_cost = 0.0
        self._services = 0

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[T]:
        """Class by class; within one, retried requests first, then all others by arrival."""
        for each in sorted(self._classes):
            yield from self._classes[each]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self._classes[each])} of class {each}" for each in sorted(self._classes))
        return f"<PriorityQueue {counts or 'empty'}>"

    @property
    def oldest(self) -> T | None:
        """The request that arrived first."""
        firsts = [first for queue in self._classes.values() if (first := queue.oldest) is not None]
        return min(firsts, key=lambda each: self._key(each)[1:], default=None)

    def add(self, item: T) -> None:
        """Queue a request."""
        number = self._class_of(item)
        queue = self._classes.get(number)
        if queue is None:
            queue = self._classes[number] = DeadlineQueue(self._key)
        queue.add(item)

    def remove(self, item: T) -> None:
        """Remove a request that was not served; an absent one is ignored."""
        queue = self._classes.get(self._class_of(item))
        if queue is not None:
            queue.remove(item)
            if not len(queue):
                self._settle()

    def serve(self, item: T, late_cutoff: float) -> None:
        """Remove a request because it was served; requests that arrived before `late_cutoff` are late."""
        number = self._class_of(item)
        queue = self._classes.get(number)
        if queue is None:
            return
        before = len(queue)
        queue.serve(item, late_cutoff)
        if len(queue) < before:
            charge = self._charge(self._cost_of(item))
            if len(self._classes) == 1 and not self._ahead and len(queue):
                return  # the only class stays level with itself
            self._ahead[number] = self._ahead.get(number, 0.0) + charge / _weight(number)
            self._settle()

    def in_service_order(self, late_cutoff: float) -> Iterator[T]:
        """All requests. The first one is the next to be served; the rest is that order without further services."""
        for number in self._in_order():
            yield from self._classes[number].in_service_order(late_cutoff)

    def position(self, item: T, late_cutoff: float) -> int:
        """How many requests are to be served before this one if no other arrives and all cost the same."""
        number = self._class_of(item)
        queue = self._classes.get(number)
        if queue is None:
            return 0
        position = queue.position(item, late_cutoff)
        weight = _weight(number)
        return position + sum(
            min(len(queue), int((position + (other < number)) * _weight(other) / weight))
            for other, queue in self._classes.items()
            if other != number
        )

    def displaced_by(self, item: T) -> T:
        """The request that leaves a full queue: the newest one of the class with most requests for its weight."""
        own = self._class_of(item)
        number = max(
            self._classes,
            key=lambda each: (len(self._classes[each]) / _weight(each), each == own),
            default=own,
        )
        newest = None if number == own else self._classes[number].newest
        return item if newest is None else newest

    def _in_order(self) -> list[int]:
        if len(self._classes) == 1:
            return list(self._classes)
        return sorted(self._classes, key=lambda each: (self._ahead.get(each, 0.0), each))

    def _charge(self, cost: float) -> float:
        mean = self._mean_cost
        charge = (
            min(max(cost, mean / _COST_RATIO_MAX), mean * _COST_RATIO_MAX) if mean > 0.0 else max(cost, 1e-9)
        )
        self._services = min(self._services + 1, _MEAN_OVER)
        self._mean_cost += (charge - mean) / self._services
        return charge

    def _settle(self) -> None:
        """Drop empty classes, and count from the least served class with requests."""
        for number in [each for each, queue in self._classes.items() if not len(queue)]:
            del self._classes[number]
        least = min((self._ahead.get(each, 0.0) for each in self._classes), default=float("inf"))
        self._ahead = {each: ahead - least for each, ahead in self._ahead.items() if ahead > least}


def _weight(number: int) -> float:
    return DEFAULT_TUNING.priority_factor**-number
