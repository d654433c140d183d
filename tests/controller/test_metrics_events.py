"""Batches of metrics: their effect on the record, and which of them make a plan due."""

import pytest

from controller import metrics_events
from controller.drain_handshake import TICKETS_SECONDS, expire_tickets
from controller.metrics_events import fold
from controller.state import ENGINES_KEPT, EndpointStateBook
from stoker_wire.messages import Condition, MetricsBatch, WorkerMetrics
from stoker_wire.states import WorkerState as S
from tests.controller.state_book import a_book
from tests.policy.builders import NOW, draining, worker


def reported(name: str = "w", number: int = 5, **given: object) -> WorkerMetrics:
    fields = {"launch_id": name, "instance_id": number, "condition": Condition.READY, "perf": 100.0}
    return WorkerMetrics(**{"reported_at": NOW} | fields | given)


def batch(*workers: WorkerMetrics, engine: str = "e", sequence: int = 1, **given: object) -> MetricsBatch:
    fields = {"engine_id": engine, "sequence": sequence, "sent_at": NOW, "workers": workers}
    return MetricsBatch(**fields | given)


def ready(name: str = "w", **given: object) -> EndpointStateBook:
    return a_book(worker(name, instance_id=5, **given))


def test_a_repeated_or_older_batch_is_dropped():
    book = a_book()
    assert fold(book, [batch(sequence=7, urgent="now")], NOW) == "now"
    assert fold(book, [batch(sequence=7, urgent="now"), batch(sequence=6, urgent="now")], NOW + 1) == ""
    assert book.record.engines["e"].heard_at == NOW
    assert fold(book, [batch(sequence=8, urgent="again")], NOW + 2) == "again"
    assert (book.record.engines["e"].sequence, book.record.engines["e"].heard_at) == (8, NOW + 2)


def test_workers_are_judged_from_when_the_last_engine_began_to_listen():
    book = a_book()
    fold(book, [batch(listening_since=NOW - 9)], NOW)
    fold(book, [batch(engine="older", listening_since=NOW - 1000)], NOW)
    assert (
        book.observation(NOW, launch_ids=(), listing_in_progress=False, searching=()).listening_since
        == NOW - 9
    )


def test_the_first_reason_of_the_batches_is_given():
    book = a_book()
    assert fold(book, [batch(urgent=""), batch(sequence=2, urgent="b")], NOW) == "b"
    assert fold(book, [batch(sequence=3, queued_load=40.0)], NOW) == "40 load waits"
    assert fold(book, [batch(sequence=3, queued_load=0.0)], NOW) == "", "it was dropped"
    assert fold(book, [batch(sequence=4)], NOW) == "the queue is empty"


def test_arrivals_count_in_the_load_history():
    book = a_book()
    arrived = batch(
        window_s=10.0,
        arrived_load=500.0,
        arrived_requests=5,
        queued_load=40.0,
        queued_requests=2,
        last_request_at=NOW - 1,
    )
    assert "load" in fold(book, [arrived], NOW)
    load = book.record.load
    assert (load.backlog_load, load.backlog_requests) == (40.0, 2)
    assert (load.last_request_at, load.known_until, load.mean_cost) == (NOW - 1, NOW, 100.0)
    assert sum(amount for _, amount in load.seconds) == pytest.approx(500.0)


def test_an_engine_keeps_open_tickets_and_confirmed_drains_of_known_workers_only():
    book = ready()
    fold(
        book,
        [
            batch(
                reported(tickets_open=2, drain_seen=True),
                reported("gone", tickets_open=3, drain_seen=True),
                reported("idle", drain_seen=False),
                stopping=True,
            )
        ],
        NOW,
    )
    (engine,) = book.record.engines.values()
    assert (engine.tickets, engine.drains_seen, engine.left) == ({"w": 2}, ("w",), True)
    assert book.record.workers["w"].tickets_open == 2


def test_the_engines_that_were_heard_longest_ago_are_forgotten():
    book = a_book()
    for number in range(ENGINES_KEPT):
        fold(book, [batch(engine=f"e{number}")], NOW)
    fold(book, [batch(engine="e0", sequence=2)], NOW)
    assert len(book.record.engines) == ENGINES_KEPT
    fold(book, [batch(engine="new")], NOW)
    assert len(book.record.engines) == ENGINES_KEPT
    assert "e1" not in book.record.engines
    assert "e0" in book.record.engines, "it was heard again"


def test_the_tickets_of_an_engine_expire_after_its_last_batch():
    book = ready()
    fold(book, [batch(reported(tickets_open=2))], NOW)
    fold(book, [batch(engine="f")], NOW + TICKETS_SECONDS)
    assert book.record.engines["e"].tickets == {"w": 2}
    fold(book, [batch(engine="f", sequence=2)], NOW + TICKETS_SECONDS + 1)
    assert book.record.engines["e"].tickets == {}
    assert list(book.record.engines) == ["e", "f"]


@pytest.mark.parametrize("made", [worker, draining])
def test_the_tickets_of_a_dead_engine_leave_its_workers(made):
    book = a_book(made("w", instance_id=5))
    fold(book, [batch(reported(tickets_open=2))], NOW)
    assert book.record.workers["w"].tickets_open == 2
    expire_tickets(book, NOW + TICKETS_SECONDS)
    assert book.record.workers["w"].tickets_open == 2
    expire_tickets(book, NOW + TICKETS_SECONDS + 1)
    assert book.record.workers["w"].tickets_open == 0


def test_the_entries_of_all_engines_are_bounded(monkeypatch):
    monkeypatch.setattr(metrics_events, "ENGINE_ENTRIES_KEPT", 4)
    book = a_book(*(worker(name) for name in "abc"))
    workers = [reported(name, book.record.workers[name].instance_id, tickets_open=1) for name in "abc"]
    fold(book, [batch(*workers, engine="one")], NOW)
    fold(book, [batch(workers[0], engine="two")], NOW)
    assert list(book.record.engines) == ["one", "two"], "3 + 1 entries"
    seen = reported("a", book.record.workers["a"].instance_id, drain_seen=True)
    fold(book, [batch(seen, engine="three")], NOW)
    assert list(book.record.engines) == ["two", "three"], "3 + 1 + 1 entries are too many"


def test_the_latest_engine_is_kept_even_over_the_bound(monkeypatch):
    monkeypatch.setattr(metrics_events, "ENGINE_ENTRIES_KEPT", 1)
    book = a_book(*(worker(name) for name in "abc"))
    workers = [reported(name, book.record.workers[name].instance_id, tickets_open=1) for name in "abc"]
    fold(book, [batch(*workers)], NOW)
    assert list(book.record.engines) == ["e"]


def test_a_report_of_an_unknown_worker_or_of_another_instance_is_ignored():
    book = ready()
    assert fold(book, [batch(reported("x"), reported(number=6, load=50.0, tickets_open=1))], NOW) == ""
    assert "x" not in book.record.workers
    assert book.record.workers["w"].load == 0.0


def test_a_worker_whose_instance_is_not_known_yet_accepts_reports():
    book = a_book(worker("w", S.MODEL_LOADING, instance_id=None))
    assert "ready" in fold(book, [batch(reported())], NOW)
    assert book.record.workers["w"].state is S.READY


def test_the_first_line_about_a_worker_is_the_reason():
    book = a_book(worker("w", S.MODEL_LOADING, instance_id=5))
    reason = fold(book, [batch(reported())], NOW)
    assert reason == book.log.lines[0].reason
    assert book.log.lines[0].subject == "w"


@pytest.mark.parametrize(
    ("before", "after", "due"),
    [
        ({"in_flight": 1, "load": 50.0}, {"in_flight": 2, "load": 50.0}, True),
        ({"in_flight": 1, "load": 50.0}, {"in_flight": 1, "load": 70.0}, False),
        ({"in_flight": 1, "load": 0.0}, {"in_flight": 1, "load": 0.5}, True),
        ({"tickets_open": 0}, {"tickets_open": 1}, True),
        ({"tickets_open": 2}, {"tickets_open": 1}, False),
        ({}, {}, False),
    ],
)
def test_a_draining_worker_that_holds_something_else_makes_a_plan_due(before, after, due):
    book = a_book(draining("w", instance_id=5))
    fold(book, [batch(reported(**before))], NOW)
    reason = fold(book, [batch(reported(**after), sequence=2)], NOW)
    assert reason == ("draining worker w holds other requests or tickets" if due else "")


@pytest.mark.parametrize("timeout", [None, 0, -1, 60])
def test_the_last_end_of_a_request_makes_a_plan_due_if_there_is_an_inactivity_timeout(timeout):
    book = a_book(worker("w", instance_id=5), inactivity_timeout=timeout)
    fold(book, [batch(reported(load=50.0, in_flight=1))], NOW)
    reason = fold(book, [batch(reported(), sequence=2)], NOW)
    begins = "worker w finished the last request: the inactivity timeout begins"
    assert reason == (begins if timeout == 60 else "")


def test_the_inactivity_timeout_does_not_begin_while_another_worker_holds_a_request():
    book = a_book(worker("w", instance_id=5), worker("v", load=10.0, in_flight=1), inactivity_timeout=60)
    fold(book, [batch(reported(load=50.0, in_flight=1))], NOW)
    assert fold(book, [batch(reported(load=20.0, in_flight=1), sequence=2)], NOW) == "", "not yet the last"
    assert fold(book, [batch(reported(), sequence=3)], NOW) == ""


def test_a_suspicion_and_its_end_make_a_plan_due():
    book = ready()
    suspect = {"suspect_since": NOW, "reported_at": NOW - 2}
    assert fold(book, [batch(reported(**suspect))], NOW) == "worker w does not answer clients"
    assert fold(book, [batch(reported(**suspect), sequence=2)], NOW) == ""
    assert fold(book, [batch(reported(reported_at=NOW + 1), sequence=3)], NOW + 1) == "worker w answers again"
