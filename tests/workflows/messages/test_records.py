"""The record goes through continue-as-new whole; the decision log and the memo stay small."""

import json

from controller.decision_log import LINES_KEPT, DecisionLog
from controller.state import EndpointStateBook, EngineRecord
from policy.keepalive.candidates import CANDIDATES, CandidateTotals
from policy.keepalive.evaluation import SEASON_MINUTES, KeepaliveState
from policy.state.observation import Memory
from policy.state.worker import Drain, Goal, Worker
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState
from tests.workflows.world import group, offers
from workflows.publish import details_of, memo_of


def full_book(workers: int = 100) -> EndpointStateBook:
    spec = EndpointSpec(
        endpoint_name="llm",
        endpoint_id=1,
        config=EndpointConfig(max_workers=workers),
        workergroups=(group(),),
    )
    book = EndpointStateBook(spec)
    for number in range(workers):
        launch_id = f"{number:012x}"
        book.record.workers[launch_id] = Worker(
            launch_id=launch_id,
            workergroup_id=1,
            revision=1,
            kind="1x RTX 4090",
            state=WorkerState.READY,
            since=1795447120.123,
            launched_at=1795447020.123,
            offer_id=30_000_000 + number,
            machine_id=50_000 + number,
            instance_id=29_000_000 + number,
            dollars_per_hour=0.3123,
            storage_dollars_per_hour=0.0123,
            perf=123.456,
            perf_estimate=120.0,
            url=f"http://203.0.113.{number}:43210",
            load=12.5,
            in_flight=3,
            reported_at=1795447180.5,
            loaded_once=True,
            market_status="running",
            drain=Drain(since=1.0, deadline=2.0, goal=Goal.STOP, reason="calm") if number % 10 == 0 else None,
        )
    book.record.engines["e"] = EngineRecord(engine_id="e", sequence=7, heard_at=1.0, tickets={"a": 1})
    book.record.pending_offers["a"] = offers()[0]
    history = tuple((1795447000.0 + 5 * number, 123.456) for number in range(60))
    minutes = tuple((1795447000.0 + 60 * number, 1234.567) for number in range(120))
    quarters = tuple((1795447000.0 + 900 * number, 12345.678) for number in range(192))
    book.record.load = type(book.record.load)(
        seconds=history, minutes=minutes, quarters=quarters, known_since=1.0, known_until=2.0
    )
    book.record.memory = full_memory()
    for number in range(LINES_KEPT + 20):
        book.log.note(
            float(number), "recruit", f"reason number {number} " + "because " * 15, subject=str(number)
        )
    return book


def full_memory() -> Memory:
    """The planner's memory with every list at its bound."""
    peaks = tuple((1795447000.0 + 5 * number, 12345.678 - number) for number in range(24))
    keepalive = KeepaliveState(
        evaluated_until=1795447180.0,
        began_at=1795400000.0,
        recent_demand=tuple(1234.567 for _ in range(60)),
        peaks=peaks,
        minute_peaks=tuple(12345.67 for _ in range(SEASON_MINUTES)),
        work=1234567.123,
        totals=CandidateTotals(
            pending_work=(123.45,) * len(CANDIDATES),
            over_limit_seconds=(25.0,) * len(CANDIDATES),
            late_work=(12345.67,) * len(CANDIDATES),
            paid_seconds=(1234567.1,) * len(CANDIDATES),
            workers=(123,) * len(CANDIDATES),
        ),
        chosen=3,
    )
    return Memory(above_since=1.0, grew_at=1.0, hot_peaks=peaks, total_peaks=peaks, keepalive=keepalive)


def test_the_record_survives_a_hand_over_unchanged() -> None:
    book = full_book()
    sent = json.loads(json.dumps(book.spec(500).model_dump(mode="json")))
    again = EndpointStateBook(EndpointSpec.model_validate(sent))
    assert again.record == book.record
    assert again.log.lines == book.log.lines
    assert (again.name, again.id, again.owner) == (book.name, book.id, book.owner)


def test_a_hundred_workers_are_carried_in_a_hundred_kilobytes() -> None:
    assert len(json.dumps(full_book().carried(), separators=(",", ":"))) < 100_000


def test_the_memo_of_a_hundred_workers_stays_far_from_the_limits() -> None:
    memo = json.dumps(memo_of(full_book()), separators=(",", ":"))
    assert len(memo) < 25_000


def test_the_details_stay_under_what_the_ui_shows() -> None:
    assert len(details_of(full_book(400), now=1795447200.0).encode()) < 20_000


def test_details_cannot_be_broken_by_what_a_worker_says() -> None:
    book = full_book(1)
    book.record.workers["000000000000"] = book.record.workers["000000000000"].replace(
        error="| <script>alert(1)</script>\n# shout", drain=None
    )
    text = details_of(book, now=1795447200.0)
    assert "<script>" not in text
    assert "&nbsp;" not in text, "the UI shows named entities as they are written"
    assert "\n# shout" not in text


def test_the_log_keeps_the_last_lines_and_does_not_repeat_itself() -> None:
    log = DecisionLog()
    for at in range(5):
        log.note(float(at), "wait", "no offers", subject="endpoint")
    assert [line.at for line in log.lines] == [4.0]
    for number in range(LINES_KEPT):
        log.note(10.0 + number, "worker", f"line {number}")
    assert len(log.lines) == LINES_KEPT
    assert log.lines[0].reason == "line 0"
    assert [line.reason for line in log.tail(2)] == [f"line {LINES_KEPT - 2}", f"line {LINES_KEPT - 1}"]
    assert log.tail(0) == []
