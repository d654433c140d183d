"""Whose turn it is: first come, first served, but who is late already lets those pass who can still be served in time.

Served strictly in order, more requests than the workers can do make everybody late, and for as long as it takes to work
off what waits: each request stands behind a queue longer than its patience. If the late ones let the others pass, as many are
served in time as there is capacity for. No work is lost by it: the line is as long as it would have been, and empty at the same
moment; only who waits in it changes. One turn in ten is theirs even then, so that nobody waits for ever.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

PATIENCE_SHARE = 0.5
"""Of target_queue_time a request waits in the line before it counts as late: the rest is for its wait on a worker."""
PASSED_MAX = 9
"""So many pass the late ones before one of these has its turn."""

T = TypeVar("T")
Order = tuple[bool, float, int]
"""(False: it had its turn and its worker failed it, when it came, a number that tells those apart who came together)."""


def late_before(now: float, target_queue_time: float) -> float:
    """Who came before this moment is late."""
    return now - PATIENCE_SHARE * target_queue_time


def worker_seconds(target_queue_time: float) -> float:
    """What is left of the target for the wait on a worker."""
    return (1.0 - PATIENCE_SHARE) * target_queue_time


class QueueDiscipline(Generic[T]):
    """Those who wait for the same thing."""

    __slots__ = ("_line", "_order", "_passed")

    def __init__(self, order: Callable[[T], Order]) -> None:
        self._order = order
        self._line: list[T] = []
        self._passed = 0
        """How many passed the late ones since one of these had its turn."""

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[T]:
        """In the order of their coming, those first whose worker failed them."""
        return iter(self._line)

    def __repr__(self) -> str:
        return f"<QueueDiscipline of {len(self._line)}>"

    @property
    def oldest(self) -> T | None:
        """Who came first."""
        line = self._line
        if not line:
            return None
        back = self._back()
        if 0 < back < len(line):
            return min(line[0], line[back], key=lambda each: self._order(each)[1:])
        return line[0]

    def add(self, one: T) -> None:
        """Line up."""
        insort(self._line, one, key=self._order)

    def remove(self, one: T) -> None:
        """Leave unserved; who is not there is not missed."""
        at = self._place(one)
        if at is not None:
            del self._line[at]

    def serve(self, one: T, late_before: float) -> None:
        """Leave, having had one's turn; late is who came before that moment."""
        at = self._place(one)
        if at is None:
            return
        back, in_time = self._back(), self._in_time(late_before)
        if at >= in_time:
            self._passed = self._passed + 1 if in_time > back else 0
        elif at >= back:
            self._passed = 0
        del self._line[at]

    def in_turn(self, late_before: float) -> Iterator[T]:
        """Everybody, whose turn it is first; do not change the line meanwhile."""
        line = self._line
        back, in_time = self._back(), self._in_time(late_before)
        yield from self._between(0, back)
        if in_time > back and self._passed >= PASSED_MAX:
            yield line[back]
            back += 1
        yield from self._between(in_time, len(line))
        yield from self._between(back, in_time)

    def position(self, one: T, late_before: float) -> int:
        """How many are to be served before it, if nobody comes."""
        at = bisect_left(self._line, self._order(one), key=self._order)
        back, in_time = self._back(), self._in_time(late_before)
        if at >= in_time:
            return at - (in_time - back)
        return at if at < back else at + len(self._line) - in_time

    def _between(self, first: int, end: int) -> Iterator[T]:
        """Without a copy: mostly only the first of all is looked at."""
        return map(self._line.__getitem__, range(first, end))

    def _back(self) -> int:
        """Where those end whose worker failed them."""
        line = self._line
        if not line or self._order(line[0])[0]:
            return 0
        return bisect_left(line, (True, float("-inf"), 0), key=self._order)

    def _in_time(self, late_before: float) -> int:
        """Where those begin who are not late yet."""
        return bisect_right(self._line, (True, late_before, -1), key=self._order)

    def _place(self, one: T) -> int | None:
        at = bisect_left(self._line, self._order(one), key=self._order)
        return at if at < len(self._line) and self._line[at] == one else None
