"""Results of the queries."""

import pytest

from controller import query_results
from controller.state import EngineRecord
from controller.whatif import advice_events
from policy.state.billing import CostLedger
from policy.state.plan import Targets, Wait
from policy.state.worker import HostFailure, MachineStats
from stoker_wire.control import Advise
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.states import WorkerState as S
from tests.controller.state_book import a_book
from tests.policy.builders import NOW, group, steady, worker


def test_the_status_shows_the_record():
    book = a_book(worker("a"), worker("b"), worker("c", S.INACTIVE), max_workers=7, groups=(group(),))
    record = book.record
    record.load = steady(50.0, waiting=30.0, requests=2)
    record.targets = Targets(hot_wanted=60.0)
    record.waits = (Wait(code="no_offers", subject="1", reason="no offers"),)
    record.replan_at, record.listed_at, record.key_version = NOW + 5, NOW - 9, 4
    record.engines = {"e": EngineRecord(engine_id="e", sequence=1, heard_at=NOW)}
    record.ledger = CostLedger(by_state=(("ready", 2.5),))
    shown = query_results.status(book, ("list",))
    assert (shown.name, shown.id, shown.state, shown.created_at) == ("llm", 3, "active", NOW - 1000)
    assert shown.config["max_workers"] == 7
    assert shown.workers == {S.READY.printed: 2, S.INACTIVE.printed: 1}
    assert (shown.load_per_second, shown.queued_load, shown.queued_requests) == (50.0, 30.0, 2)
    assert shown.dollars_per_hour == pytest.approx(0.61)  # 2 ready at 0.30 and one stopped disk at 0.01
    assert (shown.dollars, shown.replan_at, shown.listed_at) == (2.5, NOW + 5, NOW - 9)
    assert (shown.under_way, shown.key_version, shown.engines) == (("list",), 4, ("e",))
    assert (shown.targets, shown.waits) == (record.targets, record.waits)


def test_nothing_known_about_the_load_is_shown_as_zero():
    assert query_results.status(a_book(), ()).load_per_second == 0.0


def test_a_deleted_endpoint_is_deleting_whatever_its_config_says():
    book = a_book(endpoint_state="stopped")
    assert query_results.endpoint_state(book) == "stopped"
    book.record.deleting = True
    assert query_results.endpoint_state(book) == "deleting"


def test_hosts_are_blocked_unless_the_same_failure_was_seen_on_several():
    book = a_book(worker("a"))
    failures = [
        HostFailure(
            machine_id=number,
            until=NOW + 60,
            reason="boot failed",
            workergroup_id=1,
            failed_at=NOW - 9,
            cause=f"cause {number}",
        )
        for number in (7, 8)
    ]
    book.record.learned = MachineStats(failed_hosts=tuple(failures))
    book.record.waits = (
        Wait(code="worker_failed", subject="1", reason="launches fail"),
        Wait(code="no_offers", subject="1", reason="no offers"),
    )
    shown = query_results.hosts(book, NOW)
    assert [each.machine_id for each in (*shown.blocked, *shown.not_to_blame)] == [7, 8]
    first = shown.blocked[0]
    assert (first.until, first.reason, first.workergroup_id, first.failed_at) == (
        NOW + 60,
        "boot failed",
        1,
        NOW - 9,
    )
    assert [wait.code for wait in shown.paused] == ["worker_failed"]


def test_costs_are_those_of_the_ledger_and_the_present_prices():
    book = a_book(worker("a", price=0.4), worker("b", S.INACTIVE))
    book.record.workers_rented, book.record.workers_gone = 5, 3
    book.record.ledger = CostLedger(
        by_state=(("inactive", 0.5), ("ready", 2.5)), closed_difference=-0.25, settled_at=NOW - 60, until=NOW
    )
    shown = query_results.costs(book)
    assert (shown.dollars, shown.difference, shown.by_state) == (2.75, -0.25, {"inactive": 0.5, "ready": 2.5})
    assert (shown.settled_at, shown.counted_until) == (NOW - 60, NOW)
    assert shown.by_worker == {"a": 0.4, "b": 0.01}
    assert shown.dollars_per_hour == pytest.approx(0.41)
    assert (shown.workers_rented, shown.workers_gone) == (5, 3)
    assert query_results.costs(a_book()).counted_until == 0.0


def test_without_advice_there_is_nothing_to_compare():
    assert not query_results.advice(a_book(), NOW).active


def test_advice_compares_the_live_fleet_with_both_simulated_ones():
    book = a_book(
        worker("a", price=0.4),
        worker("b", S.MODEL_LOADING, price=0.4),
        worker("c", S.INACTIVE),
        worker("d", S.CREATED),
        worker("e", S.CREATED),
        worker("f", S.CREATED),
        max_workers=7,
    )
    record = book.record
    record.ledger = CostLedger(by_state=(("ready", 1.0),))
    advice_events.advise(book, Advise(config=EndpointPatch(max_workers=5)), NOW)
    record.ledger = CostLedger(by_state=(("ready", 4.0),))
    record.targets = Targets(hot_wanted=60.0, reason="50 load/s")
    shown = query_results.advice(book, NOW + 2 * 3600)
    assert (shown.active, shown.config, shown.since, shown.until) == (True, {"max_workers": 5}, NOW, NOW)
    live = shown.live
    assert (live.hot, live.booting, live.cold, live.hot_wanted, live.reason) == (1, 1, 4, 60.0, "50 load/s")
    assert live.dollars_per_hour == pytest.approx(0.84)  # two at 0.40, four disks at 0.01
    assert (live.dollars, live.dollars_per_hour_mean) == (3.0, 1.5)
    assert query_results.advice(book, NOW).live.dollars_per_hour_mean == 0.0
    assert shown.live_imagined == shown.advised, "both begin as copies of the live fleet"
    assert (shown.advised.hot, shown.advised.booting, shown.advised.cold) == (1, 1, 4)
    assert shown.advised.dollars_per_hour == pytest.approx(0.84)


def test_the_summary_of_a_deleted_endpoint_rounds_its_sums():
    book = a_book()
    book.record.workers_rented, book.record.workers_gone = 5, 4
    book.record.ledger = CostLedger(by_state=(("ready", 1.23456789),))
    summary = query_results.deleted(book, NOW + 0.12345)
    assert (summary.endpoint_name, summary.workers_rented, summary.workers_gone) == ("llm", 5, 4)
    assert (summary.dollars, summary.lived_seconds) == (1.234568, 1000.123)
    book.created_at = 0.0
    assert query_results.deleted(book, NOW).lived_seconds == 0.0, "the time of its creation is unknown"
