"""One long timer, re-armed as seldom as can be: every timer started is an event and an action."""

import asyncio
from collections.abc import Callable

from temporalio import workflow

SECONDS_MIN = 0.5
"""A plan that wants to look again at once waits at least so long: no plan can make the workflow spin."""


LATE_SECONDS = 0.2
"""Rings a little after the wanted time: what is due a few milliseconds later (a listing is due so long after the last
one was *asked for*) is due then, too. On the dot it would cost a second timer and a second plan."""


class WakeTimer:
    """Calls `ring` at the wanted time.

    When that moves later the running timer is kept: it wakes nobody, and is set anew then. Only an earlier time starts
    another one. So a wish that moves on with every signal costs one timer per period, not one per signal.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._wanted: float | None = None
        self._armed_for: float | None = None
        self._timer: asyncio.Task[None] | None = None

    def set(self, at: float | None) -> None:
        """Ring at this Unix time; None: not at all."""
        self._wanted = at
        if at is not None and (self._armed_for is None or at < self._armed_for):
            self._arm(at)

    def cancel(self) -> None:
        """Not at all."""
        self._wanted = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._armed_for = None, None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = at
        self._timer = asyncio.create_task(self._sleep(max(at + LATE_SECONDS - workflow.time(), SECONDS_MIN)))

    async def _sleep(self, seconds: float) -> None:
        await workflow.sleep(seconds, summary="look again")
        self._timer, self._armed_for = None, None
        if self._wanted is None:
            return
        if self._wanted > workflow.time():
            self._arm(self._wanted)
        else:
            self._wanted = None
            self._ring()
