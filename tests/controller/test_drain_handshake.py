"""When the timeout of a silent engine next changes a drain."""

import pytest

from controller.drain_handshake import NOTICE_SECONDS, TICKETS_SECONDS, recheck_at
from controller.state import ENGINE_LIVE_SECONDS, EngineRecord
from tests.controller.state_book import a_book
from tests.policy.builders import NOW, draining, worker


def at(*workers, **engines):
    book = a_book(*workers)
    book.record.engines = {
        name: EngineRecord(engine_id=name, sequence=1, **{"heard_at": NOW - 5} | given)
        for name, given in engines.items()
    }
    return recheck_at(book, NOW)


@pytest.mark.parametrize(
    ("drained", "engines", "moment"),
    [
        (draining("w", seen=None), {}, None),
        (draining("w", seen=None), {"e": {}}, NOW - 5 + ENGINE_LIVE_SECONDS),
        (draining("w", seen=None), {"e": {"left": True}}, None),
        (draining("w", seen=None), {"e": {}, "f": {"heard_at": NOW - 9}}, NOW - 9 + ENGINE_LIVE_SECONDS),
        (draining("w", seen=None), {"e": {"heard_at": NOW - ENGINE_LIVE_SECONDS}}, None),
        (
            draining("w", seen=None, began=NOW),
            {"e": {"heard_at": NOW - ENGINE_LIVE_SECONDS}},
            NOW + NOTICE_SECONDS,
        ),
        (draining("w"), {"e": {}}, None),
        (draining("w"), {"e": {"tickets": {"w": 1}, "left": True}}, NOW - 5 + TICKETS_SECONDS),
        (draining("w"), {"e": {"tickets": {"v": 1}}}, None),
        (worker("w"), {"e": {"tickets": {"w": 1}}}, None),
    ],
)
def test_a_drain_is_looked_at_when_an_engine_or_its_tickets_time_out(drained, engines, moment):
    assert at(drained, **engines) == moment


def test_every_draining_worker_counts():
    workers = (worker("first"), draining("w", seen=None))
    assert at(*workers, e={}) == NOW - 5 + ENGINE_LIVE_SECONDS
