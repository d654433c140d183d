import json

import pytest

from simulation.report import simulate_trace
from stoker_wire.endpoint import EndpointConfig

CONFIG = EndpointConfig(max_workers=32, min_workers=0, min_load=0.0, cold_mult=1.0)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "day.csv"
    lines = [f"{n * 1.7 + (n * 7919 % 10) / 10:.2f},{30 + n * 31 % 60}" for n in range(2500)]
    path.write_text("\n".join(["t_s,work", *lines]) + "\n")
    return path


def test_a_report_shows_waits_and_money(trace):
    report = simulate_trace(trace, CONFIG, perf=50.0)
    text = report.table()
    assert "2,500 requests" in text
    assert f"${report.asked.figures.dollars:.2f}" in text
    assert "wait p50 / p99 / p99.9" in text
    assert report.frontier == ()


def test_the_frontier_costs_more_and_waits_less_step_by_step(trace):
    told = []
    report = simulate_trace(
        trace, CONFIG, perf=50.0, frontier=True, progress=lambda share, what: told.append(share)
    )
    costs = [each.figures.dollars for each in report.frontier]
    waits = [each.figures.wait_p99 for each in report.frontier]
    assert costs == sorted(costs)
    assert waits == sorted(waits, reverse=True)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_wanted_queue_time_is_met_by_the_cheapest_that_meets_it(trace):
    generous = simulate_trace(trace, CONFIG, perf=50.0, queue_seconds=1e6)
    assert generous.suggestion is not None
    assert generous.suggestion.figures.dollars == min(each.figures.dollars for each in generous.frontier)
    impossible = simulate_trace(trace, CONFIG, perf=50.0, queue_seconds=1e-9)
    assert "no tried config keeps" in impossible.because


def test_a_budget_below_everything_is_answered_with_the_cheapest(trace):
    report = simulate_trace(trace, CONFIG, perf=50.0, budget_dollars_per_hour=1e-6)
    assert "nothing tried costs less than" in report.because


def test_a_request_log_of_the_engine_is_a_trace_too(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(json.dumps({"at": 1.7e9 + n * 5, "cost": 100.0}) for n in range(200)))
    report = simulate_trace(path, CONFIG, perf=100.0)
    assert report.asked.figures.requests == 200


def test_pictures_are_drawn(trace, tmp_path):
    pytest.importorskip("matplotlib")
    report = simulate_trace(trace, CONFIG, perf=50.0, frontier=True, pictures=tmp_path / "out")
    assert [path.name for path in report.pictures] == ["run.png", "frontier.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.pictures)
