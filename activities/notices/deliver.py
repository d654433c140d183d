"""The activity that delivers notices."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.notices.errors import NotDelivered
from stoker_wire.alerts import Delivery, Notice

log = structlog.get_logger(__name__)


class Channel(Protocol):
    """A way to reach people or programs."""

    async def deliver(self, notices: Sequence[Notice]) -> None:
        """Send the notices.

        Raises:
            NotDelivered: they were not accepted.
        """


class NoticeActivities:
    """Delivers notices to the channels of this process's settings."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels

    @activity.defn
    async def deliver_notices(self, delivery: Delivery) -> None:
        """One try. Temporal repeats it with the same notices, until it succeeds or they are too old."""
        names = [each.id for each in delivery.notices]
        try:
            await self._channel(delivery.channel).deliver(delivery.notices)
        except asyncio.CancelledError:
            if not activity.is_worker_shutdown():
                raise
            # A failed try is repeated at once by another process; a cancelled one only after its timeout.
            raise ApplicationError(
                "this process stops; another one repeats the try", type="Stopping"
            ) from None
        except NotDelivered as error:
            attempt = activity.info().attempt
            log.warning(
                "notice_not_delivered",
                channel=delivery.channel,
                notices=names,
                attempt=attempt,
                final=error.final,
                reason=str(error),
            )
            after = error.retry_after_seconds
            raise ApplicationError(
                str(error),
                type="NotDelivered",
                non_retryable=error.final,
                next_retry_delay=None if after is None else timedelta(seconds=after),
                category=ApplicationErrorCategory.BENIGN,
            ) from None
        log.info("notice_delivered", channel=delivery.channel, notices=names)

    def _channel(self, name: str) -> Channel:
        if name not in self._channels:
            raise NotDelivered(
                f"this process has no channel {name!r}; give all engines and workers the same settings"
            )
        return self._channels[name]
