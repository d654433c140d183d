"""One listing of the whole account answers everybody who asked before it began.

The marketplace lists all instances of the account, and all its bills, a page at a time; every endpoint wants to see its own.
With a thousand endpoints that would be a thousand times the whole list.
"""

import asyncio
import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Labelled(Protocol):
    """What belongs to an endpoint by its label."""

    @property
    def label(self) -> str | None:
        """`stoker:<endpoint>:<launch id>`."""
        ...


T = TypeVar("T", bound=Labelled)
_LAST = "\U0010ffff"
PAUSE_FACTOR = 9.0
"""A list that took two seconds of pages is not asked for again for eighteen, a longer one for `PAUSE_SECONDS_MAX`."""
PAUSE_SECONDS_MAX = 25.0
"""Those who waited are answered one by one over the pause, so within a minute of their call. All at once, hundreds of
workflows would be woken in one moment, and what is urgent would wait behind them."""


class SharedListing(Generic[T]):
    """Callers share the next list that begins after they called: none is answered with what was known before it asked."""

    def __init__(self, everything: Callable[[float], Awaitable[Iterable[T]]]) -> None:
        """`everything(since)` reads it all; what is over since before that moment (Unix seconds) may be left out."""
        self._everything = everything
        self._next: asyncio.Task[_Found[T]] | None = None
        """Waits for its turn; who calls now is answered by it."""
        self._callers = 0
        """Who waits for it."""
        self._since = math.inf
        """The earliest moment that one of those who wait for it asked for."""
        self._turn = asyncio.Lock()
        self._free_at = 0.0

    async def starting_with(self, label_prefix: str, *, since: float = 0.0) -> list[T]:
        """Those whose label starts with it, in the marketplace's order. Who cannot wait for others asks for labels
        (`market.shared_lookup`).

        Raises:
            MarketError: the list that this call waited for could not be read.
        """
        self._since = min(self._since, since)
        if self._next is None:
            self._next = asyncio.create_task(self._read(), name="list the account")
            self._next.add_done_callback(_heard)
        before, self._callers = self._callers, self._callers + 1
        # One caller that gives up does not take the list away from the others.
        found = await asyncio.shield(self._next)
        if before:
            await asyncio.sleep(found.pause * before / found.callers)
        return found.starting_with(label_prefix)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._next is not None:
            self._next.cancel()

    async def _read(self) -> "_Found[T]":
        loop = asyncio.get_running_loop()
        async with self._turn:
            try:
                await asyncio.sleep(max(0.0, self._free_at - loop.time()))
            finally:
                self._next = None  # from here on it is too late for whoever calls
                since, self._since = self._since, math.inf
                callers, self._callers = self._callers, 0
            began = loop.time()
            try:
                everything = await self._everything(since)
            finally:
                pause = min(PAUSE_FACTOR * (loop.time() - began), PAUSE_SECONDS_MAX)
                self._free_at = loop.time() + pause
            return _Found(everything, callers, pause)


class _Found(Generic[T]):
    """A list in which each endpoint finds its own without reading the others'."""

    def __init__(self, found: Iterable[T], callers: int, pause: float) -> None:
        self.callers = callers
        self.pause = pause
        """Seconds until the next list may begin."""
        self._found = sorted(enumerate(found), key=lambda each: (each[1].label or "", each[0]))
        self._labels = [each.label or "" for _, each in self._found]

    def starting_with(self, prefix: str) -> list[T]:
        begin = bisect_left(self._labels, prefix)
        end = bisect_left(self._labels, prefix + _LAST, lo=begin)
        return [one for _, one in sorted(self._found[begin:end], key=lambda each: each[0])]


def _heard(task: "asyncio.Task[_Found[T]]") -> None:
    """A fault that nobody is left to hear is no news of its own."""
    if not task.cancelled():
        task.exception()
