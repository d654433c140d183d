"""Sends the queued notices of each channel, for the notifier's workflow and for an engine without Temporal."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from policy.alerting.outbox import Outbox, with_batch, with_channels, with_notices, without_batch
from stoker_wire.alerts import Notice, NoticeChannel

RETRY_SECONDS_MAX = 600.0
"""Longest pause between two tries of a delivery."""


class ChannelSenders:
    """One task per channel that delivers its queue in order, so that a slow receiver delays no other.

    `deliver` returns whether the receiver accepted the batch; False: it is given up. `now` returns Unix seconds.
    """

    def __init__(
        self,
        outboxes: Iterable[Outbox],
        deliver: Callable[[str, tuple[Notice, ...]], Awaitable[bool]],
        *,
        now: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.outboxes = {each.channel.name: each for each in outboxes}
        self.stopping = False
        """A batch that is not delivered from now on stays in its outbox."""
        self._deliver = deliver
        self._now = now
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set_channels(self, channels: Iterable[NoticeChannel]) -> None:
        """Have these channels and no others."""
        self.outboxes = {each.channel.name: each for each in with_channels(self.outboxes.values(), channels)}

    def send(self, notices: Iterable[Notice]) -> None:
        """Queue the notices, and start to deliver all that are queued."""
        self.outboxes = {name: with_notices(outbox, notices) for name, outbox in self.outboxes.items()}
        for name, outbox in self.outboxes.items():
            task = self._tasks.get(name)
            if outbox.queue and (task is None or task.done()):
                self._tasks[name] = asyncio.create_task(self._send(name), name=f"channel {name}")

    async def stop(self) -> None:
        """Cancel deliveries in progress and wait for their ends."""
        self.stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _send(self, name: str) -> None:
        while not self.stopping and name in self.outboxes:
            outbox = self.outboxes[name] = with_batch(self.outboxes[name], self._now())
            if not outbox.batch:
                return
            delivered = await self._deliver(name, outbox.queue[: outbox.batch])
            if self.stopping and not delivered:
                return
            if name in self.outboxes:
                self.outboxes[name] = without_batch(self.outboxes[name], delivered=delivered)
                self._changed()
