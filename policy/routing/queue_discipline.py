"""Deadline-aware FIFO: requests past half of their target yield to requests that can still meet it.

In strict FIFO order an overload makes every request late until the backlog is gone, because each one waits behind a
queue that is longer than its target. When late requests yield, as many requests are on time as the capacity allows. The
amount of work and the time to clear the backlog stay the same. One request in ten is a late one even then, so that each
is served.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from policy.tuning import DEFAULT_TUNING

T = TypeVar("T")
SortKey = tuple[bool, float, int]
"""(False for a request that is retried after its worker failed, arrival time, number that breaks ties)."""


def late_cutoff(now: float, target_queue_time: float) -> float:
    """Requests that arrived before this time are late."""
    return now - DEFAULT_TUNING.queue_wait_share * target_queue_time


def worker_wait_seconds(target_queue_time: float) -> float:
    """The part of the target that remains for the wait on a worker."""
    return (1.0 - DEFAULT_TUNING.queue_wait_share) * target_queue_time


class DeadlineQueue(Generic[T]):
    """A queue served in the order: retried requests, on-time requests, late requests; each group by arrival."""

    __slots__ = ("_items", "_key", "_overtakes")

    def __init__(self, key: Callable[[T], SortKey]) -> None:
        self._key = key
        self._items: list[T] = []
        self._overtakes = 0
        """On-time requests served since the last late one, while late ones waited."""

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """Retried requests first, then all others by arrival."""
        return iter(self._items)

    def __repr__(self) -> str:
        return f"<DeadlineQueue of {len(self._items)}>"

    @property
    def oldest(self) -> T | None:
        """The request that arrived first."""
        items = self._items
        if not items:
            return None
        retried = self._retried_end()
        if 0 < retried < len(items):
            return min(items[0], items[retried], key=lambda each: self._key(each)[1:])
        return items[0]

    @property
    def newest(self) -> T | None:
        """The request that arrived last, of those that are not retried if there are any."""
        return self._items[-1] if self._items else None

    def add(self, item: T) -> None:
        """Queue a request."""
        insort(self._items, item, key=self._key)

    def remove(self, item: T) -> None:
        """Remove a request that was not served; an absent one is ignored."""
        at = self._index(item)
        if at is not None:
            del self._items[at]

    def serve(self, item: T, late_cutoff: float) -> None:
        """Remove a request because it was served; requests that arrived before `late_cutoff` are late."""
        at = self._index(item)
        if at is None:
            return
        retried, on_time = self._retried_end(), self._on_time_start(late_cutoff)
        if at >= on_time:
            self._overtakes = self._overtakes + 1 if on_time > retried else 0
        elif at >= retried:
            self._overtakes = 0
        del self._items[at]

    def in_service_order(self, late_cutoff: float) -> Iterator[T]:
        """All requests in the order in which they are to be served. Do not modify the queue during the iteration."""
        items = self._items
        retried, on_time = self._retried_end(), self._on_time_start(late_cutoff)
        yield from self._between(0, retried)
        if on_time > retried and self._overtakes >= DEFAULT_TUNING.overtakes_max:
            yield items[retried]
            retried += 1
        yield from self._between(on_time, len(items))
        yield from self._between(retried, on_time)

    def position(self, item: T, late_cutoff: float) -> int:
        """How many requests are to be served before this one if no other arrives."""
        at = bisect_left(self._items, self._key(item), key=self._key)
        retried, on_time = self._retried_end(), self._on_time_start(late_cutoff)
        if at >= on_time:
            return at - (on_time - retried)
        return at if at < retried else at + len(self._items) - on_time

    def _between(self, first: int, end: int) -> Iterator[T]:
        """A lazy slice: callers mostly read only its first item."""
        return map(self._items.__getitem__, range(first, end))

    def _retried_end(self) -> int:
        """Index after the last retried request."""
        items = self._items
        if not items or self._key(items[0])[0]:
            return 0
        return bisect_left(items, (True, float("-inf"), 0), key=self._key)

    def _on_time_start(self, late_cutoff: float) -> int:
        """Index of the first request that is on time."""
        return bisect_right(self._items, (True, late_cutoff, -1), key=self._key)

    def _index(self, item: T) -> int | None:
        at = bisect_left(self._items, self._key(item), key=self._key)
        return at if at < len(self._items) and self._items[at] == item else None
