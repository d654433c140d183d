"""Looks instances up by label, and combines concurrent lookups into few calls, one at a time.

One call asks for as many labels as the marketplace lists on a page, however many endpoints boot at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from stoker_wire.market import Instance


@dataclass(frozen=True, slots=True)
class _Request:
    labels: tuple[str, ...]
    answer: "asyncio.Future[list[Instance]]"


class SharedLookup:
    """Combines lookups. Each caller gets the instances with its labels, and the errors of its own calls."""

    def __init__(
        self, find: Callable[[Sequence[str]], Awaitable[Iterable[Instance]]], *, at_once_max: int
    ) -> None:
        """`find` asks the marketplace for the instances with one of at most `at_once_max` labels."""
        self._find = find
        self._at_once_max = at_once_max
        self._pending: deque[_Request] = deque()
        self._task: asyncio.Task[None] | None = None

    async def labelled(self, labels: Sequence[str]) -> list[Instance]:
        """The instances whose label is one of these, as the marketplace shows them after this call.

        Raises:
            MarketError: a combined call failed.
        """
        loop = asyncio.get_running_loop()
        requests = [
            _Request(tuple(labels[begin : begin + self._at_once_max]), loop.create_future())
            for begin in range(0, len(labels), self._at_once_max)
        ]
        self._pending += requests
        if requests and self._task is None:
            self._task = loop.create_task(self._run(), name="look labels up")
        found = await asyncio.gather(*(one.answer for one in requests))
        return [instance for some in found for instance in some]

    def close(self) -> None:
        """Cancel all lookups."""
        if self._task is not None:
            self._task.cancel()
        for one in self._pending:
            one.answer.cancel()
        self._pending.clear()

    async def _run(self) -> None:
        try:
            while self._pending:
                await self._answer(self._next_batch())
        finally:
            self._task = None

    def _next_batch(self) -> list[_Request]:
        """The oldest pending requests that fit into one call."""
        batch: list[_Request] = []
        free = self._at_once_max
        while self._pending and len(self._pending[0].labels) <= free:
            one = self._pending.popleft()
            free -= len(one.labels)
            batch.append(one)
        return batch

    async def _answer(self, batch: list[_Request]) -> None:
        batch = [one for one in batch if not one.answer.done()]  # without cancelled callers
        if not batch:
            return
        try:
            found = list(await self._find([label for one in batch for label in one.labels]))
        except asyncio.CancelledError:
            for one in batch:
                one.answer.cancel()
            raise
        except Exception as fault:  # noqa: BLE001 - the callers get it
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(fault)
            return
        for one in batch:
            if not one.answer.done():
                labels = set(one.labels)
                one.answer.set_result([instance for instance in found if instance.label in labels])
