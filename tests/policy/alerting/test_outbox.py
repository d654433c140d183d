"""Notices wait in order until they are delivered, given up or too old."""

from policy.alerting.outbox import (
    EXPIRE_SECONDS,
    QUEUED_MAX,
    Outbox,
    with_batch,
    with_channels,
    with_notices,
    without_batch,
)
from stoker_wire.alerts import Notice, NoticeChannel

NOW = 1_000_000.0


def notice(number: int, *, alert: str = "StokerNoCapacity", at: float = NOW) -> Notice:
    return Notice(
        id=f"{number}", incident=f"{number}", alert=alert, state="firing", severity="page", summary="it waits",
        since=at, at=at,
    )  # fmt: skip


def outbox(*alerts: str, batch_max: int = 1) -> Outbox:
    return Outbox(channel=NoticeChannel(name="ops", alerts=alerts, batch_max=batch_max))


def ids(box: Outbox) -> list[str]:
    return [each.id for each in box.queue]


def test_notices_are_delivered_in_order_one_batch_after_the_other():
    box = with_notices(outbox(batch_max=2), [notice(n) for n in range(3)])
    box = with_batch(box, NOW)
    assert box.batch == 2
    box = without_batch(box, delivered=True)
    assert (ids(box), box.delivered) == (["2"], 2)
    box = without_batch(with_batch(box, NOW), delivered=False)
    assert (ids(box), box.delivered, box.dropped) == ([], 2, 1)


def test_a_batch_that_is_repeated_has_the_same_notices():
    box = with_batch(with_notices(outbox(batch_max=20), [notice(1)]), NOW)
    box = with_batch(with_notices(box, [notice(2)]), NOW)
    assert box.batch == 1


def test_a_channel_receives_only_the_alerts_of_its_settings():
    box = with_notices(outbox("StokerEngineDown"), [notice(1), notice(2, alert="StokerEngineDown")])
    assert ids(box) == ["2"]


def test_a_notice_is_queued_once():
    box = with_notices(with_notices(outbox(), [notice(1)]), [notice(1)])
    assert ids(box) == ["1"]


def test_the_oldest_notices_beyond_the_limit_are_dropped_but_not_those_in_delivery():
    box = with_batch(with_notices(outbox(), [notice(n) for n in range(QUEUED_MAX)]), NOW)
    box = with_notices(box, [notice(QUEUED_MAX)])
    assert (ids(box)[:2], len(box.queue), box.dropped) == (["0", "2"], QUEUED_MAX, 1)


def test_notices_of_more_than_a_day_ago_are_dropped():
    box = with_notices(outbox(), [notice(1), notice(2, at=NOW + 10)])
    box = with_batch(box, NOW + EXPIRE_SECONDS)
    assert (ids(box), box.dropped) == (["2"], 1)


def test_a_channel_keeps_its_queue_when_the_settings_change():
    boxes = with_channels((), [NoticeChannel(name="a"), NoticeChannel(name="b")])
    boxes = tuple(with_notices(box, [notice(1)]) for box in boxes)
    changed = with_channels(boxes, [NoticeChannel(name="b", batch_max=7), NoticeChannel(name="c")])
    assert [(box.channel.name, box.channel.batch_max, ids(box)) for box in changed] == [
        ("b", 7, ["1"]),
        ("c", 1, []),
    ]
