"""A worker's clock may be wrong by minutes, and nobody but its host can put it right: it lets in whom the engine sends."""

import pytest
from structlog.testing import capture_logs

from stoker_pyworker.ticket_clock import TicketClock
from tests.pyworker.harness import until

SIX = 1795845600.0
"""Sat, 28 Nov 2026 06:00:00 GMT."""


def hear(clock, seconds, *, ahead, took=0.2):
    """The engine answers so many seconds after six, when ours is so far ahead."""
    date = f"Sat, 28 Nov 2026 06:{seconds // 60:02}:{seconds % 60:02} GMT"
    received_at = SIX + seconds + 0.5 + ahead
    clock.observe_date(date.encode(), engine="e", sent_at=received_at - took, received_at=received_at)


@pytest.mark.parametrize("ahead", [90.0, 3600.0])
async def test_a_worker_whose_clock_is_ahead_lets_in_whom_the_engine_sends(make_worker, engine, ahead):
    engine.date = -ahead
    worker = await make_worker()
    await until(lambda: worker.runtime.clock.ahead_seconds > 0)
    assert worker.runtime.status()["clock_ahead_seconds"] == pytest.approx(ahead, abs=3)
    assert (await worker.post("/echo", expires_in=60 - ahead)).status_code == 200
    late = await worker.post("/echo", expires_in=-30 - ahead)
    assert (late.status_code, late.json()["error"]) == (401, "ticket_expired")


@pytest.mark.parametrize("ahead", [90.0, 3600.0])
async def test_a_worker_whose_clock_is_behind_lets_in_whom_the_engine_sends(make_worker, engine, ahead):
    engine.date = ahead
    worker = await make_worker()
    await until(lambda: len(engine.statuses) > 1)
    assert (await worker.post("/echo", expires_in=60 + ahead)).status_code == 200


@pytest.mark.parametrize("date", [None, "yesterday", "", "Sat, 99 Foo 2026 99:99:99 GMT", "\xff", 0.0, -3.0])
async def test_an_engine_that_tells_no_other_time_changes_nothing(make_worker, engine, date):
    engine.date = date
    worker = await make_worker()
    await until(lambda: len(engine.statuses) > 1)
    assert worker.runtime.clock.ahead_seconds == 0
    assert (await worker.post("/echo")).status_code == 200


def test_a_clock_is_held_for_wrong_only_where_it_is_off_by_seconds_and_that_is_said_once():
    clock = TicketClock()
    with capture_logs() as logs:
        hear(clock, 0, ahead=4)
        assert clock.ahead_seconds == 0
        for seconds in range(1, 60):
            hear(clock, seconds, ahead=120 + seconds % 3)
        assert clock.ahead_seconds == pytest.approx(121, abs=1)
    assert [(line["event"], line["engine"]) for line in logs] == [("clock_ahead", "e")]
    assert logs[0]["seconds"] == pytest.approx(121, abs=1)


def test_of_engines_that_do_not_agree_the_one_that_is_furthest_behind_counts():
    clock = TicketClock()
    for seconds in range(0, 3600, 10):
        hear(clock, seconds, ahead=0 if seconds % 50 else 200)
        assert clock.ahead_seconds == pytest.approx(200, abs=1)


def test_a_clock_that_was_put_right_is_held_for_right_after_a_while():
    clock = TicketClock()
    hear(clock, 0, ahead=900)
    for seconds in range(10, 3600, 10):
        hear(clock, seconds, ahead=0)
    assert clock.ahead_seconds == 0


def test_an_answer_that_took_long_says_nothing_of_the_time():
    clock = TicketClock()
    hear(clock, 0, ahead=120, took=9)
    assert clock.ahead_seconds == 0
