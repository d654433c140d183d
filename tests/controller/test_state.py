"""The state of an endpoint within its bounds."""

import pytest

from controller import state
from controller.state import ERROR_BYTES_LEFT, LINES_LEFT, REASON_BYTES_LEFT, EndpointStateBook, within_bounds
from stoker_wire.control import EndpointSpec
from stoker_wire.parsing.limits import json_bytes
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, worker

STEPS = {
    "the published memo": "memo",
    "the advice": "advice",
    "older decisions": "decisions",
    "workers' boots, and the end of their errors and drain reasons": "workers",
    "what was planned": "targets",
    "what was learned": "learned",
    "the load history": "load",
}


def large_state() -> dict:
    text = "x" * 1000
    return {
        "config": text,
        "memo": text,
        "advice": text,
        "decisions": list(range(100)),
        "workers": {
            "a": {"error": text, "perf": 1, "boot": [["loading", 1.0]]},
            "b": {"perf": 2, "drain": {"reason": text, "since": 3}},
        },
        "targets": text,
        "waits": text,
        "load_at_plan": 7,
        "learned": text,
        "memory": text,
        "load": text,
    }


def test_a_small_state_is_kept_whole():
    assert within_bounds(large_state()) == large_state()


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
def test_a_large_state_drops_the_least_important_fields_until_it_fits(monkeypatch, steps):
    expected = large_state()
    cuts = [
        lambda: expected.pop("memo"),
        lambda: expected.pop("advice"),
        lambda: expected.update(decisions=list(range(100))[-LINES_LEFT:]),
        lambda: expected["workers"].update(
            a={"error": "x" * ERROR_BYTES_LEFT, "perf": 1},
            b={"perf": 2, "drain": {"reason": "x" * REASON_BYTES_LEFT, "since": 3}},
        ),
        lambda: [expected.pop(name) for name in ("targets", "waits", "load_at_plan")],
        lambda: [expected.pop(name) for name in ("learned", "memory")],
        lambda: expected.pop("load"),
    ]
    for cut in cuts[:steps]:
        cut()
    expected |= {"left_out": list(STEPS)[:steps]}  # the names of what was dropped need room too
    monkeypatch.setattr(state, "STATE_BYTES_MAX", json_bytes(expected))
    assert within_bounds(large_state()) == expected
    monkeypatch.setattr(state, "STATE_BYTES_MAX", json_bytes(expected) - 1)
    assert within_bounds(large_state()) != expected or steps == len(STEPS)


def test_a_cut_that_saves_nothing_is_not_named(monkeypatch):
    monkeypatch.setattr(state, "STATE_BYTES_MAX", 0)
    assert within_bounds({"config": 1, "learned": 2})["left_out"] == ["what was learned"]
    assert "left_out" not in within_bounds({"config": 1})


def test_a_new_run_logs_what_was_left_out_or_could_not_be_read():
    book = a_book(worker("w"))
    carried = book.carried() | {"left_out": ["the advice"], "memory": "bad"}
    spec = EndpointSpec(endpoint_name="llm", endpoint_id=3, carried=carried)
    again = EndpointStateBook(spec)
    again.note_what_is_missing(("spec_field",), NOW)
    unknown, left_out, forgotten = reasons(again)
    assert unknown.endswith("spec_field")
    assert left_out.endswith("the advice")
    assert forgotten.endswith("memory")
    assert again.record.left_out == ()
    again.note_what_is_missing((), NOW)
    assert len(reasons(again)) == 3, "what was left out is logged once"
    assert list(again.record.workers) == ["w"]


def test_costs_are_counted_unless_the_host_keeps_its_own_accounts():
    book = a_book(worker("w", price=3.6))
    book.count_dollars(NOW)
    book.count_dollars(NOW + 1000)
    assert book.record.ledger.dollars == pytest.approx(1.0)
    other = EndpointStateBook(book.spec(), counts_dollars=False)
    other.count_dollars(NOW + 9000)
    assert other.record.ledger == book.record.ledger
