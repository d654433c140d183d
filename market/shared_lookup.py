"""A few instances by their labels: those that all callers ask for meanwhile go into one call, one call at a time.

However many endpoints boot at once, the marketplace is asked about as many machines in a call as it shows on a page.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from stoker_wire.market import Instance


@dataclass(frozen=True, slots=True)
class _Asked:
    labels: tuple[str, ...]
    answer: "asyncio.Future[list[Instance]]"


class SharedLookup:
    """Callers share calls, not answers: each gets the instances that carry its labels, and a fault of its own call."""

    def __init__(
        self, find: Callable[[Sequence[str]], Awaitable[Iterable[Instance]]], *, at_once_max: int
    ) -> None:
        """`find` asks the marketplace for instances that carry one of so many labels."""
        self._find = find
        self._at_once_max = at_once_max
        self._waiting: deque[_Asked] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def labelled(self, labels: Sequence[str]) -> list[Instance]:
        """Those that carry exactly one of the labels, as the marketplace shows them after this call.

        Raises:
            MarketError: what was asked for together with these could not be read.
        """
        loop = asyncio.get_running_loop()
        asked = [
            _Asked(tuple(labels[begin : begin + self._at_once_max]), loop.create_future())
            for begin in range(0, len(labels), self._at_once_max)
        ]
        self._waiting += asked
        if asked and self._asking is None:
            self._asking = loop.create_task(self._ask_all(), name="look labels up")
        found = await asyncio.gather(*(one.answer for one in asked))
        return [instance for some in found for instance in some]

    def close(self) -> None:
        """Nobody waits any more."""
        if self._asking is not None:
            self._asking.cancel()
        for one in self._waiting:
            one.answer.cancel()
        self._waiting.clear()

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                await self._ask(self._together())
        finally:
            self._asking = None

    def _together(self) -> list[_Asked]:
        """As many of those that wait, in their order, as one call carries."""
        taken: list[_Asked] = []
        room = self._at_once_max
        while self._waiting and len(self._waiting[0].labels) <= room:
            one = self._waiting.popleft()
            room -= len(one.labels)
            taken.append(one)
        return taken

    async def _ask(self, taken: list[_Asked]) -> None:
        taken = [one for one in taken if not one.answer.done()]  # whoever gave up is not asked for
        if not taken:
            return
        try:
            found = list(await self._find([label for one in taken for label in one.labels]))
        except asyncio.CancelledError:
            for one in taken:
                one.answer.cancel()
            raise
        except Exception as fault:  # noqa: BLE001 - it belongs to those who asked
            for one in taken:
                if not one.answer.done():
                    one.answer.set_exception(fault)
            return
        for one in taken:
            if not one.answer.done():
                wanted = set(one.labels)
                one.answer.set_result([instance for instance in found if instance.label in wanted])
