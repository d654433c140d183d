"""When has every engine stopped giving a draining worker out?"""

from controller import metrics_events
from controller.drain_handshake import TICKETS_SECONDS, note_drains_seen, open_tickets
from controller.state import EndpointStateBook
from policy.state.worker import Drain, Goal, Worker
from stoker_wire.control import EndpointSpec
from stoker_wire.messages import (
    REQUEST_BREAKS_MAX,
    Condition,
    EndpointMemo,
    MetricsBatch,
    RequestBreak,
    WorkerMetrics,
)
from stoker_wire.states import WorkerState
from workflows.publish import memo_of

DRAINED_AT = 1000.0


def book() -> EndpointStateBook:
    made = EndpointStateBook(EndpointSpec(endpoint_name="llm", endpoint_id=1))
    drain = Drain(since=DRAINED_AT, deadline=1600, goal=Goal.STOP, reason="calm")
    made.record.workers["w"] = Worker(
        launch_id="w",
        workergroup_id=1,
        revision=1,
        kind="1x H100",
        state=WorkerState.READY,
        since=0,
        launched_at=0,
        instance_id=5,
        drain=drain,
        loaded_once=True,
    )
    return made


def hear(
    book: EndpointStateBook, engine: str, at: float, *, seen: bool, tickets: int = 0, leaving: bool = False
) -> str:
    told = WorkerMetrics(
        launch_id="w",
        instance_id=5,
        condition=Condition.READY,
        perf=1,
        reported_at=at,
        drain_seen=seen,
        tickets_open=tickets,
    )
    batch = MetricsBatch(engine_id=engine, sequence=int(at), sent_at=at, workers=(told,), stopping=leaving)
    return metrics_events.fold(book, (batch,), at)


def seen_at(book: EndpointStateBook) -> float | None:
    drain = book.record.workers["w"].drain
    assert drain is not None
    return drain.seen_at


def test_every_live_engine_has_to_say_so() -> None:
    fleet = book()
    hear(fleet, "a", 990, seen=False)
    hear(fleet, "b", 991, seen=False)
    hear(fleet, "a", 1001, seen=True)
    assert not note_drains_seen(fleet, 1001)
    hear(fleet, "b", 1002, seen=True)
    assert note_drains_seen(fleet, 1002)
    assert seen_at(fleet) == 1002
    assert not note_drains_seen(fleet, 1003), "once"


def test_a_calm_engine_is_waited_for_at_first() -> None:
    fleet = book()
    hear(fleet, "calm", 940, seen=False)  # a minute before the drain: it speaks once a minute
    hear(fleet, "busy", 1001, seen=True)
    assert not note_drains_seen(fleet, 1001)
    assert note_drains_seen(fleet, 1011), "by now a living one would have spoken"


def test_a_dead_engine_is_not_waited_for() -> None:
    fleet = book()
    hear(fleet, "dead", 995, seen=False)
    hear(fleet, "alive", 1020, seen=True)
    assert not note_drains_seen(fleet, 1024)
    assert note_drains_seen(fleet, 1026)


def test_an_engine_that_said_goodbye_is_not_waited_for_but_its_tickets_are() -> None:
    fleet = book()
    hear(fleet, "old", 999, seen=False, tickets=2, leaving=True)
    hear(fleet, "new", 1001, seen=True)
    assert note_drains_seen(fleet, 1001)
    assert fleet.record.workers["w"].tickets_open == 2
    assert open_tickets(fleet, "w", 999 + TICKETS_SECONDS + 1) == 0


def test_without_any_engine_nothing_is_known() -> None:
    fleet = book()
    assert not note_drains_seen(fleet, 1500)


def test_tickets_are_counted_over_all_engines() -> None:
    fleet = book()
    hear(fleet, "a", 1001, seen=True, tickets=2)
    hear(fleet, "b", 1002, seen=True, tickets=3)
    assert fleet.record.workers["w"].tickets_open == 5
    hear(fleet, "a", 1003, seen=True, tickets=0)
    assert fleet.record.workers["w"].tickets_open == 3


def test_the_last_open_ticket_of_a_draining_worker_is_news() -> None:
    fleet = book()
    hear(fleet, "a", 1001, seen=True, tickets=1)
    assert "holds other requests or tickets" in hear(fleet, "a", 1002, seen=True, tickets=0)
    assert hear(fleet, "a", 1003, seen=True, tickets=0) == ""


def test_a_batch_without_the_worker_takes_back_what_was_said_of_it() -> None:
    fleet = book()
    hear(fleet, "a", 1001, seen=True, tickets=2)
    metrics_events.fold(fleet, (MetricsBatch(engine_id="a", sequence=1002, sent_at=1002),), 1002)
    assert fleet.record.engines["a"].tickets == {}
    assert not note_drains_seen(fleet, 1002), "it may be the word about an earlier drain"


def test_breaks_of_workers_by_requests_reach_the_memo_and_are_bounded() -> None:
    fleet = book()
    for number in range(2 * REQUEST_BREAKS_MAX):
        found = RequestBreak(f=f"{number:032x}", l="w", t=1000.0 + number)
        batch = MetricsBatch(engine_id="a", sequence=number, sent_at=1100, breaks=(found, found))
        metrics_events.fold(fleet, (batch,), 1100)
    kept = [each.f for each in EndpointMemo.model_validate(memo_of(fleet)).b]
    assert kept == [f"{number:032x}" for number in range(REQUEST_BREAKS_MAX, 2 * REQUEST_BREAKS_MAX)]
    metrics_events.fold(fleet, (MetricsBatch(engine_id="a", sequence=99, sent_at=9000),), 9000)
    assert fleet.record.request_breaks == (), "after an hour they no longer count"
