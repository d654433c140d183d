"""Tickets are accepted although the worker's clock is wrong by minutes."""

import pytest
from structlog.testing import capture_logs

from stoker_pyworker.ticket_clock import TicketClock
from tests.pyworker.harness import until

SIX = 1795845600.0
"""Sat, 28 Nov 2026 06:00:00 GMT."""


def observe(clock, seconds, *, ahead, took=0.2):
    """The engine responds `seconds` after six o'clock; the local clock is `ahead` seconds ahead."""
    date = f"Sat, 28 Nov 2026 06:{seconds // 60:02}:{seconds % 60:02} GMT"
    received_at = SIX + seconds + 0.5 + ahead
    clock.observe_date(date.encode(), engine="e", sent_at=received_at - took, received_at=received_at)


@pytest.mark.parametrize("ahead", [90.0, 3600.0])
async def test_a_worker_whose_clock_is_ahead_accepts_the_engines_tickets(make_worker, engine, ahead):
    engine.date = -ahead
    worker = await make_worker()
    await until(lambda: worker.runtime.clock.ahead_seconds > 0)
    assert worker.runtime.status()["clock_ahead_seconds"] == pytest.approx(ahead, abs=3)
    assert (await worker.post("/echo", expires_in=60 - ahead)).status_code == 200
    late = await worker.post("/echo", expires_in=-30 - ahead)
    assert (late.status_code, late.json()["error"]) == (401, "ticket_expired")


@pytest.mark.parametrize("ahead", [90.0, 3600.0])
async def test_a_worker_whose_clock_is_behind_accepts_the_engines_tickets(make_worker, engine, ahead):
    engine.date = ahead
    worker = await make_worker()
    await until(lambda: len(engine.statuses) > 1)
    assert (await worker.post("/echo", expires_in=60 + ahead)).status_code == 200


@pytest.mark.parametrize("date", [None, "yesterday", "", "Sat, 99 Foo 2026 99:99:99 GMT", "\xff", 0.0, -3.0])
async def test_a_missing_invalid_or_equal_date_changes_nothing(make_worker, engine, date):
    engine.date = date
    worker = await make_worker()
    await until(lambda: len(engine.statuses) > 1)
    assert worker.runtime.clock.ahead_seconds == 0
    assert (await worker.post("/echo")).status_code == 200


def test_a_skew_of_many_seconds_is_corrected_and_logged_once():
    clock = TicketClock()
    with capture_logs() as logs:
        observe(clock, 0, ahead=4)
        assert clock.ahead_seconds == 0
        for seconds in range(1, 60):
            observe(clock, seconds, ahead=120 + seconds % 3)
        assert clock.ahead_seconds == pytest.approx(121, abs=1)
    assert [(line["event"], line["engine"]) for line in logs] == [("clock_ahead", "e")]
    assert logs[0]["seconds"] == pytest.approx(121, abs=1)


def test_the_slowest_clock_of_several_engines_counts():
    clock = TicketClock()
    for seconds in range(0, 3600, 10):
        observe(clock, seconds, ahead=0 if seconds % 50 else 200)
        assert clock.ahead_seconds == pytest.approx(200, abs=1)


def test_a_corrected_local_clock_is_trusted_again_after_a_while():
    clock = TicketClock()
    observe(clock, 0, ahead=900)
    for seconds in range(10, 3600, 10):
        observe(clock, seconds, ahead=0)
    assert clock.ahead_seconds == 0


def test_the_date_of_a_slow_response_is_ignored():
    clock = TicketClock()
    observe(clock, 0, ahead=120, took=9)
    assert clock.ahead_seconds == 0
