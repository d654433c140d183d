"""The reporter with a real engine and no worker: its reports and their times."""

import asyncio
import random
import shutil
import time
from types import SimpleNamespace

import pytest

from stoker_pyworker.model.gpu import Gpus
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.proxy.worker_queue import RunningRequest
from stoker_pyworker.reporting import reports
from stoker_pyworker.reporting.reports import Reporter
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_pyworker.ticket_clock import TicketClock
from stoker_wire.route import COST_MAX
from tests.pyworker.harness import Engine, until


class Alone:
    """A reporter and what it reports."""

    def __init__(self, *addresses: str) -> None:
        self.counts = RequestCounts()
        self.health = HealthState()
        self.clock = TicketClock()
        self.running: RunningRequest | None = None
        self.now = asyncio.Event()
        self.reporter = Reporter(
            addresses,
            worker_id=17,
            token="token",
            url=lambda: "http://worker",
            counts=self.counts,
            health=self.health,
            gpus=Gpus(),
            queued=lambda: 3,
            running_request=lambda: self.running,
            clock=self.clock,
            report_now=self.now,
            concurrency=8,
            models=lambda: ("m",),
        )

    def ended(self, *costs: float, outcome: Outcome = Outcome.SUCCESS) -> None:
        """Requests of these costs come and end."""
        for number, cost in enumerate(costs, start=1):
            self.counts.accept(work := Work(number, cost))
            self.counts.finish(work, outcome)


@pytest.fixture
async def alone(engine):
    alone = Alone(engine.url + "/w/17")
    yield alone
    alone.reporter.close()


async def test_a_report_contains_the_state_and_the_changes_since_the_last_one(alone, engine):
    alone.health.loaded(50.0)
    alone.ended(5.0, 7.0)
    alone.counts.accept(Work(9, 40.0))
    alone.counts.reject(Work(10, 2.0))
    assert await alone.reporter.report()
    alone.ended(4.0)
    alone.counts.reject(Work(10, 3.0))
    assert await alone.reporter.report()
    first, second = engine.statuses
    assert (first["id"], first["mtoken"], first["url"], first["models"]) == (
        17,
        "token",
        "http://worker",
        ["m"],
    )
    assert (first["max_perf"], first["queued"], first["num_requests_working"]) == (50.0, 3, 1)
    assert first["concurrency"] == 8
    assert (first["num_requests_recieved"], first["working_request_idxs"]) == (3, [9])
    loads = ("cur_load", "new_load", "rej_load", "cur_perf")
    assert [first[name] for name in loads] == [40.0, 52.0, 2.0, 12.0]
    assert [second[name] for name in loads] == [40.0, 4.0, 3.0, 4.0]
    assert first["cur_capacity"] == first["max_capacity"] == 0, "part of the protocol, and not used"
    assert first["uptime_seconds"] <= second["uptime_seconds"] < 600
    assert [item["request_idx"] for item in engine.finished] == [1, 2, 10, 1, 10]


async def test_the_used_disk_is_reported_in_gib_with_its_growth(engine, monkeypatch):
    disk = SimpleNamespace(used=1.25 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    alone = Alone(engine.url)
    disk.used = 1.5 * 2**30
    await alone.reporter.report()
    disk.used = 2.25 * 2**30
    await alone.reporter.report()
    alone.reporter.close()
    names = ("disk_usage", "additional_disk_usage")
    assert [[status[name] for name in names] for status in engine.statuses] == [[1.5, 0.25], [2.25, 0.75]]


async def test_a_failed_report_loses_nothing(alone, engine):
    engine.failing = "status"
    alone.ended(5.0)
    assert not await alone.reporter.report()
    assert alone.counts.changed
    engine.failing = ""
    assert await alone.reporter.report()
    assert (engine.total("new_load"), engine.total("cur_perf"), len(engine.finished)) == (5.0, 5.0, 1)
    assert not alone.counts.changed


async def test_a_running_request_is_reported_with_the_delay_of_its_end(alone, engine):
    await alone.reporter.report()
    alone.running = RunningRequest(load=40.0, seconds=2.5)
    await alone.reporter.report()
    names = ("running_load", "running_seconds", "end_report_seconds")
    assert [[status[name] for name in names] for status in engine.statuses] == [[0, 0, 0], [40.0, 2.5, 0.5]]


async def test_loads_beyond_the_engines_limits_are_clamped(alone, engine):
    alone.counts.accept(Work(1, COST_MAX * 3))
    await alone.reporter.report()
    alone.counts.finish(Work(2, 10.0), Outcome.CANCELLED)
    alone.counts.load = -5.0
    await alone.reporter.report()
    assert [status["cur_load"] for status in engine.statuses] == [COST_MAX, 0.0]
    assert engine.statuses[1]["new_load"] == 0.0


async def test_a_refused_list_is_halved_until_the_refused_item_is_found(alone, engine):
    sizes = []

    def status_for(items):
        sizes.append(len(items))
        return 422 if 3 in {item["request_idx"] for item in items} else 200

    engine.status_for = status_for
    alone.ended(*[1.0] * 8)
    assert await alone.reporter.report()
    assert [item["request_idx"] for item in engine.finished] == [1, 2, 4, 5, 6, 7, 8]
    assert alone.counts.dropped == 1
    # 1…8 and 1…4 are refused, 1…2 accepted; 3…6 and 3…4 refused, then 3 alone, which is dropped;
    # the size doubles after each list that is accepted
    assert sizes == [8, 4, 2, 4, 2, 1, 1, 2, 2]


async def test_a_report_drops_at_most_ten_requests(alone, engine):
    engine.status_for = lambda _: 400
    alone.ended(*[1.0] * 12)
    assert await alone.reporter.report()
    assert (alone.counts.dropped, alone.counts.unreported) == (10, 2)


async def test_a_long_list_is_sent_in_parts_of_a_thousand(alone, engine):
    sizes = []
    engine.status_for = lambda items: sizes.append(len(items)) or 200
    alone.ended(*[1.0] * 1001)
    assert await alone.reporter.report()
    assert sizes == [1000, 1]


async def test_an_engine_that_answers_is_asked_first_from_then_on(engine):
    other = await Engine().start()
    alone = Alone(other.url, engine.url)
    try:
        other.failing = "status"
        await alone.reporter.report()
        other.failing = ""
        await alone.reporter.report()
        assert (other.attempts, len(engine.statuses)) == (1, 2)
    finally:
        alone.reporter.close()
        await other.stop()


async def test_an_engine_that_refuses_the_ended_requests_for_now_fails_the_report(alone, engine):
    engine.status_for = lambda _: 503
    alone.ended(1.0)
    assert not await alone.reporter.report()
    assert (len(engine.statuses), alone.counts.unreported, alone.counts.dropped) == (1, 1, 0)


@pytest.mark.parametrize(
    ("held", "running", "matters"), [(0, False, True), (1, False, False), (1, True, True)]
)
async def test_the_end_of_work_is_reported_soon_if_the_worker_is_idle_or_runs_the_next(
    alone, held, running, matters, monkeypatch
):
    monkeypatch.setattr(reports, "_COALESCE_SECONDS", 0.0)
    monkeypatch.setattr(reports, "_END_GAP_SECONDS", 0.0)
    alone.running = RunningRequest(load=1.0) if running else None
    for number in range(held):
        alone.counts.accept(Work(number, 1.0))
    alone.counts.changed = True
    alone.reporter.work_ended()
    alone.reporter.work_ended()
    await until(lambda: alone.reporter._end_timer is None)
    assert alone.now.is_set() is matters


async def test_an_end_that_was_reported_meanwhile_needs_no_report(alone, monkeypatch):
    monkeypatch.setattr(reports, "_END_GAP_SECONDS", 0.0)
    monkeypatch.setattr(reports, "_COALESCE_SECONDS", 0.0)
    alone.reporter.work_ended()
    alone.counts.changed = False
    await until(lambda: alone.reporter._end_timer is None)
    assert not alone.now.is_set()


async def test_reports_of_ended_requests_keep_their_distance(alone):
    began = time.monotonic()
    await alone.reporter.report()
    alone.counts.changed = True
    alone.reporter.work_ended()
    await alone.now.wait()
    assert time.monotonic() - began > 0.24, "0.25 s from the beginning of the report before"


async def test_the_loop_sends_a_last_report_and_ends(alone, engine):
    task = asyncio.create_task(alone.reporter.run())
    await until(lambda: engine.statuses)
    alone.ended(5.0)
    alone.reporter.end()
    await task
    assert engine.total("cur_perf") == 5.0


@pytest.mark.parametrize("failing", ["status", "finished"])
async def test_the_pause_after_failures_doubles_up_to_eight_seconds(alone, engine, failing, monkeypatch):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)
        engine.failing = failing if len(pauses) < 7 else ""
        if len(pauses) == 8:
            alone.reporter.end()

    monkeypatch.setattr(alone.reporter, "_pause", pause)
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    engine.failing = failing
    alone.ended(1.0)
    await alone.reporter.run()
    # three quarters of 0.5, 1, 2, 4, 8, 8, 8; then ten seconds after the report that arrived
    assert pauses == [0.375, 0.75, 1.5, 3.0, 6.0, 6.0, 6.0, 10.0]


async def test_without_an_address_there_are_no_reports():
    await Alone().reporter.run()


def test_the_schedule_is_the_documented_one():
    assert (reports._BUSY_SECONDS, reports._CALM_SECONDS) == (1.0, 10.0)
    assert reports._COALESCE_SECONDS == 0.03
    assert reports._BACKOFF_SECONDS == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert 2 * reports._END_GAP_SECONDS == reports._ENDS_REPORTED_SECONDS == 0.5, (
        "the gap, and as much for transport"
    )


async def test_an_idle_reporter_pauses_until_it_is_asked(alone):
    pause = asyncio.create_task(alone.reporter._pause(60.0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not pause.done()
    alone.now.set()
    await asyncio.wait_for(pause, 20.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_a_pause_that_is_over_does_not_wait(alone, seconds):
    await alone.reporter._pause(seconds)
    assert not alone.now.is_set()


@pytest.mark.parametrize("changed", [{"changed": True}, {}])
async def test_a_busy_worker_is_reported_every_second(alone, monkeypatch, changed):
    monkeypatch.setattr(reports, "_BUSY_SECONDS", 0.02)
    if not changed:
        alone.ended(1.0)  # not acknowledged yet
    alone.counts.changed = bool(changed)
    began = time.monotonic()
    async with asyncio.timeout(20.0):
        await alone.reporter._pause(60.0)
    assert time.monotonic() - began >= 0.02
    assert not alone.now.is_set(), "the time has passed, although nobody asked"


async def test_a_worker_without_changes_is_not_reported_every_second(alone, monkeypatch):
    monkeypatch.setattr(reports, "_BUSY_SECONDS", 0.01)
    began = time.monotonic()
    await alone.reporter._pause(0.1)
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("http://engine", ""),
        ("http://engine/", ""),
        ("http://engine/w/17", "/w/17"),
        ("http://engine:80/w/17/", "/w/17"),
    ],
)
def test_the_path_of_an_address_comes_before_that_of_the_report(address, path):
    assert reports._path(address) == path
