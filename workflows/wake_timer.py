"""One timer for the next wake-up, restarted rarely, because each timer is an event and a billed action."""

import asyncio
from collections.abc import Callable

from temporalio import workflow

from controller.controller import TIMER_LATE_SECONDS, TIMER_SECONDS_MIN


class WakeTimer:
    """Calls `ring` at the wanted time.

    If the time moves later, the running timer is kept; when it fires, it is restarted for the rest. Only an earlier
    time starts another timer. So a time that moves with every signal costs one timer per period, not one per signal.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._wanted: float | None = None
        self._armed_for: float | None = None
        self._timer: asyncio.Task[None] | None = None

    def set(self, at: float | None) -> None:
        """Call `ring` at this Unix time; None: never."""
        self._wanted = at
        if at is not None and (self._armed_for is None or at < self._armed_for):
            self._arm(at)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = at
        seconds = max(at + TIMER_LATE_SECONDS - workflow.time(), TIMER_SECONDS_MIN)
        self._timer = asyncio.create_task(self._sleep(seconds))

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
