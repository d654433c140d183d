"""Shares listings of the whole account between callers.

The marketplace lists all instances or bills of the account in pages, and every endpoint needs only its own. With a
thousand endpoints, separate calls would read the whole list a thousand times.
"""

import asyncio
import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Labelled(Protocol):
    """An item that belongs to an endpoint by its label."""

    @property
    def label(self) -> str | None:
        """The label, e.g. `stoker:<endpoint>:<launch id>`."""
        ...


T = TypeVar("T", bound=Labelled)
_LAST = "\U0010ffff"
PAUSE_FACTOR = 9.0
"""Pause after a listing, as a multiple of its duration: 18 s after a listing that took 2 s."""
PAUSE_SECONDS_MAX = 25.0
"""Upper limit of the pause. Callers get their answers spread over the pause, so that workflows do not wake all at once."""


class SharedListing(Generic[T]):
    """Answers each caller from the next listing that starts after its call, so no answer is older than the call."""

    def __init__(self, list_all: Callable[[float], Awaitable[Iterable[T]]]) -> None:
        """`list_all(since)` reads the whole list; it may leave out items that ended before `since` (Unix seconds)."""
        self._list_all = list_all
        self._next: asyncio.Task[_Listing[T]] | None = None
        """The next listing, which has not started yet."""
        self._callers = 0
        """Callers that wait for the next listing."""
        self._since = math.inf
        """The earliest `since` of these callers."""
        self._lock = asyncio.Lock()
        self._next_start_at = 0.0

    async def starting_with(self, label_prefix: str, *, since: float = 0.0) -> list[T]:
        """The items whose label starts with the prefix, in the marketplace's order.

        `market.shared_lookup` is faster for a few exact labels.

        Raises:
            MarketError: the listing could not be read.
        """
        self._since = min(self._since, since)
        if self._next is None:
            self._next = asyncio.create_task(self._read(), name="list the account")
            self._next.add_done_callback(_retrieve_exception)
        position, self._callers = self._callers, self._callers + 1
        # A cancelled caller must not cancel the listing of the others.
        listing = await asyncio.shield(self._next)
        if position:
            await asyncio.sleep(listing.pause * position / listing.callers)
        return listing.starting_with(label_prefix)

    def close(self) -> None:
        """Cancel the pending listing."""
        if self._next is not None:
            self._next.cancel()

    async def _read(self) -> "_Listing[T]":
        loop = asyncio.get_running_loop()
        async with self._lock:
            try:
                await asyncio.sleep(max(0.0, self._next_start_at - loop.time()))
            finally:
                self._next = None  # later callers need another listing
                since, self._since = self._since, math.inf
                callers, self._callers = self._callers, 0
            began = loop.time()
            try:
                items = await self._list_all(since)
            finally:
                pause = min(PAUSE_FACTOR * (loop.time() - began), PAUSE_SECONDS_MAX)
                self._next_start_at = loop.time() + pause
            return _Listing(items, callers, pause)


class _Listing(Generic[T]):
    """A listing, sorted by label for fast lookup of a prefix."""

    def __init__(self, found: Iterable[T], callers: int, pause: float) -> None:
        self.callers = callers
        self.pause = pause
        """Seconds until the next listing may start."""
        self._found = sorted(enumerate(found), key=lambda each: (each[1].label or "", each[0]))
        self._labels = [each.label or "" for _, each in self._found]

    def starting_with(self, prefix: str) -> list[T]:
        begin = bisect_left(self._labels, prefix)
        end = bisect_left(self._labels, prefix + _LAST, lo=begin)
        return [one for _, one in sorted(self._found[begin:end], key=lambda each: each[0])]


def _retrieve_exception(task: "asyncio.Task[_Listing[T]]") -> None:
    """Prevent asyncio's warning about an exception that no caller retrieved."""
    if not task.cancelled():
        task.exception()
