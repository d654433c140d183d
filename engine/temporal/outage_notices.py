"""Notices that Temporal does not answer. The notifier cannot send them: it is a workflow."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from activities.notices.deliver import Channel
from activities.notices.errors import NotDelivered
from activities.notices.reporting import NoticePlan
from activities.notices.sending import RETRY_SECONDS_MAX, ChannelSenders
from policy.alerting.conditions import temporal_alerts
from policy.alerting.incidents import AlertBook, check, with_report
from policy.alerting.outbox import EXPIRE_SECONDS
from stoker_wire.alerts import AlertReport, Notice

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0


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
        self._senders = ChannelSenders((), self._deliver, now=now)
        self._senders.set_channels(plan.channels)

    async def run(self) -> None:
        """Look and send until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._senders.stop()

    def look(self) -> None:
        """Evaluate the condition, and start to send new notices."""
        alerts = temporal_alerts(self._silent_seconds(), place=self._place)
        report = AlertReport(role="engine", place=self._place, alerts=tuple(alerts))
        self._book, notices = check(with_report(self._book, report), self._now(), deployment=self._deployment)
        self._senders.send(notices)

    async def _deliver(self, name: str, notices: Sequence[Notice]) -> bool:
        """A try that fails is repeated with the same notices, for a day."""
        pause = self._first_retry_seconds
        while True:
            try:
                await self._channels[name].deliver(notices)
            except NotDelivered as error:
                log.warning("notice_not_delivered", channel=name, final=error.final, reason=str(error))
                if error.final or self._now() - notices[0].at >= EXPIRE_SECONDS:
                    return False
                await asyncio.sleep(error.retry_after_seconds or pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
            else:
                log.info("notice_delivered", channel=name, notices=[each.id for each in notices])
                return True
