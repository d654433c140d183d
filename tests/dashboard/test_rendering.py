"""Values of the engine as they are written on the page."""

from typing import Any

import pytest

from dashboard.rendering import advice_sentence, numbered, request_lists, state_style


def request(**changes: Any) -> dict[str, Any]:
    return {"waited_s": 1.0, "took_s": 3.0, "busy_s": 2.0, "outcome": "done", "launch_id": "a1"} | changes


def test_the_time_of_a_request_is_split_into_waiting_the_workers_queue_and_the_model() -> None:
    (row,) = request_lists({"recent": [request()]})["recent"]["rows"]
    assert (row["waited"], row["queued"], row["model"], row["total"]) == (1.0, 1.0, 2.0, 4.0)
    # 1, 1 and 2 of 4 s on a bar of 100 units
    assert row["bar"].count('width="25.0"') == 2
    assert row["bar"].count('width="50.0"') == 1


def test_the_bar_of_the_slowest_request_has_the_full_length_and_the_others_their_share() -> None:
    found = request_lists({"slow": [request(), request(waited_s=0.0, took_s=1.0, busy_s=1.0)]})
    second = found["slow"]["rows"][1]
    assert 'width="25.0"' in second["bar"]


def test_the_time_at_a_worker_that_reports_no_model_time_counts_as_the_model() -> None:
    (row,) = request_lists({"failed": [request(busy_s=0.0)]})["failed"]["rows"]
    assert (row["queued"], row["model"], row["total"]) == (None, 3.0, 4.0)


def test_a_request_that_took_no_time_has_an_empty_bar() -> None:
    (row,) = request_lists({"failed": [request(waited_s=0.0, took_s=0.0, busy_s=0.0)]})["failed"]["rows"]
    assert row["bar"].count('width="0.0"') == 3


def test_a_long_list_of_requests_tells_how_many_there_are() -> None:
    found = request_lists({"recent": [request()] * 100})["recent"]
    assert (found["total"], len(found["rows"])) == (100, 20)


def side(dollars: float, wait: float) -> dict[str, float]:
    return {"dollars_per_hour_mean": dollars, "wait_seconds_mean": wait}


def test_the_advice_says_what_the_config_would_have_cost() -> None:
    advice = {"since": 0.0, "until": 600.0, "live_imagined": side(2.0, 0.1), "advised": side(1.5, 3.0)}
    assert advice_sentence(advice) == (
        "In the last 10 min this would have cost $1.50/h instead of $2.00/h ($0.50/h less), with an expected wait of "
        "3 s instead of 100 ms."
    )
    assert "($0.50/h more)" in advice_sentence(advice | {"live_imagined": side(1.0, 0.1)})
    assert "(the same)" in advice_sentence(advice | {"live_imagined": side(1.5, 0.1)})


@pytest.mark.parametrize("advice", [{}, {"since": 5.0, "until": 5.0, "advised": side(0, 0)}])
def test_advice_that_has_just_begun_compares_nothing(advice: dict[str, Any]) -> None:
    assert "has begun" in advice_sentence(advice)


@pytest.mark.parametrize(
    ("status", "style"),
    [
        ("idle", "hot"),
        ("model_loading", "booting"),
        ("stopped", "cold"),
        ("error", "failed"),
        ("new", "cold"),
    ],
)
def test_a_worker_has_the_colour_of_its_stage(status: str, style: str) -> None:
    assert state_style(status) == style


def test_a_decision_keeps_its_number_when_newer_ones_arrive() -> None:
    lines = [{"at": 2.0, "kind": "stop"}, {"at": 1.0, "kind": "wait"}, {"at": 1.0, "kind": "wait"}]
    before = [line["number"] for line in numbered(lines)]
    after = [line["number"] for line in numbered([{"at": 3.0, "kind": "keep"}, *lines])]
    assert after[1:] == before
    assert len(set(after)) == 4
