"""Notices that wait for delivery, in order, for each channel."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stoker_wire.alerts import Notice, NoticeChannel

QUEUED_MAX = 100
"""Notices of one channel. The oldest is dropped beyond this number: the state has to stay below 2 MiB."""
EXPIRE_SECONDS = 86_400.0
"""A notice that could not be delivered for a day is dropped. Doubled: a channel that was down for two days receives
the notices of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """One channel's queue. Notices stay in it until they are delivered."""

    channel: NoticeChannel
    queue: tuple[Notice, ...] = ()
    batch: int = 0
    """Notices at the head of the queue that are being delivered. A delivery that is repeated has the same content."""
    delivered: int = 0
    dropped: int = 0


def with_channels(outboxes: Iterable[Outbox], channels: Iterable[NoticeChannel]) -> tuple[Outbox, ...]:
    """The outboxes of these channels. A new channel begins empty; a removed one loses its queue."""
    before = {each.channel.name: each for each in outboxes}
    return tuple(
        replace(before.get(channel.name, Outbox(channel=channel)), channel=channel) for channel in channels
    )


def with_notices(outbox: Outbox, notices: Iterable[Notice]) -> Outbox:
    """The outbox with the notices that the channel receives; without the oldest if there are too many."""
    wanted = outbox.channel.alerts
    known = {each.id for each in outbox.queue}
    added = [each for each in notices if (not wanted or each.alert in wanted) and each.id not in known]
    queue = (*outbox.queue, *added)
    excess = max(0, len(queue) - QUEUED_MAX)
    kept = (*queue[: outbox.batch], *queue[outbox.batch + excess :])
    return replace(outbox, queue=kept, dropped=outbox.dropped + len(queue) - len(kept))


def with_batch(outbox: Outbox, now: float) -> Outbox:
    """The outbox with a batch at its head to deliver, if it has notices. Expired ones are dropped first."""
    if outbox.batch:
        return outbox
    fresh = tuple(each for each in outbox.queue if now - each.at < EXPIRE_SECONDS)
    return replace(
        outbox,
        queue=fresh,
        batch=min(len(fresh), outbox.channel.batch_max),
        dropped=outbox.dropped + len(outbox.queue) - len(fresh),
    )


def without_batch(outbox: Outbox, *, delivered: bool) -> Outbox:
    """The outbox after its batch was delivered or given up."""
    done = outbox.batch
    return replace(
        outbox,
        queue=outbox.queue[done:],
        batch=0,
        delivered=outbox.delivered + (done if delivered else 0),
        dropped=outbox.dropped + (0 if delivered else done),
    )
