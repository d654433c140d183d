"""Notices that Temporal does not answer. The notifier cannot send them: it is a workflow."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from activities.notices.deliver import Channel
from activities.notices.errors import NotDelivered
from activities.notices.reporting import NoticePlan
from policy.alerting.conditions import temporal_alerts
from policy.alerting.incidents import AlertBook, check, with_report
from policy.alerting.outbox import (
    EXPIRE_SECONDS,
    Outbox,
    with_batch,
    with_channels,
    with_notices,
    without_batch,
)
from stoker_wire.alerts import AlertReport

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
RETRY_SECONDS_MAX = 600.0


class OutageNotices:
    """Follows one alert in this process and sends its notices. Every engine has its own."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        plan: NoticePlan,
        *,
        place: str,
        silent_seconds: Callable[[], float],
        first_retry_seconds: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`silent_seconds`: how long Temporal has not answered this process."""
        self._channels = channels
        self._deployment = plan.deployment
        self._place = place
        self._silent_seconds = silent_seconds
        self._first_retry_seconds = first_retry_seconds
        self._now = now
        self._book = AlertBook()
        self._outboxes: dict[str, Outbox] = {
            each.channel.name: each for each in with_channels((), plan.channels)
        }
        self._senders: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look and send until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for sender in self._senders.values():
                sender.cancel()
            await asyncio.gather(*self._senders.values(), return_exceptions=True)

    def look(self) -> None:
        """Evaluate the condition, and start to send new notices."""
        alerts = temporal_alerts(self._silent_seconds(), place=self._place)
        report = AlertReport(role="engine", place=self._place, alerts=tuple(alerts))
        self._book, notices = check(with_report(self._book, report), self._now(), deployment=self._deployment)
        self._outboxes = {name: with_notices(outbox, notices) for name, outbox in self._outboxes.items()}
        for name, outbox in self._outboxes.items():
            sender = self._senders.get(name)
            if outbox.queue and (sender is None or sender.done()):
                self._senders[name] = asyncio.create_task(self._send(name), name=f"channel {name}")

    async def _send(self, name: str) -> None:
        """Deliver the channel's queue in order. A try that fails is repeated with the same notices, for a day."""
        pause = self._first_retry_seconds
        while True:
            outbox = self._outboxes[name] = with_batch(self._outboxes[name], self._now())
            if not outbox.batch:
                return
            batch, delivered = outbox.queue[: outbox.batch], True
            try:
                await self._channels[name].deliver(batch)
            except NotDelivered as error:
                log.warning("notice_not_delivered", channel=name, final=error.final, reason=str(error))
                if not error.final and self._now() - batch[0].at < EXPIRE_SECONDS:
                    await asyncio.sleep(error.retry_after_seconds or pause)
                    pause = min(pause * 2, RETRY_SECONDS_MAX)
                    continue
                delivered = False
            else:
                log.info("notice_delivered", channel=name, notices=[each.id for each in batch])
            pause = self._first_retry_seconds
            self._outboxes[name] = without_batch(self._outboxes[name], delivered=delivered)
