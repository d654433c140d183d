import json

import pytest

from simulation.report import Tried, options, simulate_trace, suggest
from stoker_wire.endpoint import EndpointConfig

CONFIG = EndpointConfig(max_workers=32, min_workers=0, min_load=0.0, cold_mult=1.0)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "day.csv"
    lines = [f"{n * 1.7 + (n * 7919 % 10) / 10:.2f},{30 + n * 31 % 60}" for n in range(300)]
    path.write_text("\n".join(["t_s,work", *lines]) + "\n")
    return path


def test_a_report_shows_waits_and_money(trace):
    report = simulate_trace(trace, CONFIG, perf=50.0)
    text = report.table()
    assert "300 requests" in text
    assert f"${report.asked.score.dollars:.2f}" in text
    assert "wait p50 / p99 / p99.9" in text
    assert report.frontier == ()


def test_a_request_at_the_very_end_of_a_trace_is_served(tmp_path):
    path = tmp_path / "sparse.csv"
    path.write_text("\n".join(["t_s,work", *(f"{20 * n},30" for n in range(100))]) + "\n")
    assert "never" not in simulate_trace(path, CONFIG, perf=800.0).table()


def test_the_frontier_costs_more_and_waits_less_step_by_step(trace):
    told = []
    report = simulate_trace(
        trace,
        CONFIG,
        perf=50.0,
        frontier=True,
        cold_start=True,
        progress=lambda share, what: told.append(share),
    )
    costs = [each.score.dollars for each in report.frontier]
    waits = [each.score.wait_p99 for each in report.frontier]
    assert costs == sorted(costs)
    assert waits == sorted(waits, reverse=True)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_wanted_queue_time_is_met_by_the_cheapest_that_meets_it(trace):
    generous = simulate_trace(trace, CONFIG, perf=50.0, queue_seconds=1e6, cold_start=True)
    assert generous.suggestion is not None
    assert generous.suggestion.score.dollars == min(each.score.dollars for each in generous.frontier)
    impossible = simulate_trace(trace, CONFIG, perf=50.0, queue_seconds=1e-9, cold_start=True)
    assert "no tried config keeps" in impossible.because


def test_a_budget_below_everything_is_answered_with_the_cheapest(trace):
    report = simulate_trace(trace, CONFIG, perf=50.0, budget_dollars_per_hour=1e-6, cold_start=True)
    assert "nothing tried costs at most" in report.because


def test_a_request_log_of_the_engine_is_a_trace_too(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(json.dumps({"at": 1.7e9 + n * 5, "cost": 100.0}) for n in range(200)))
    report = simulate_trace(path, CONFIG, perf=100.0)
    assert report.asked.score.requests == 200


def test_the_samples_of_a_run_add_up_to_its_arrivals_and_its_longest_wait(trace):
    trace.write_text(trace.read_text() + "3000,50\n")  # every request begins before the last sample
    report = simulate_trace(trace, CONFIG, perf=50.0, cold_start=True)
    samples = report.asked.score.samples
    step = samples[1].at - samples[0].at
    assert sum(each.load for each in samples) * step == pytest.approx(report.asked.score.work)
    assert max(each.worst_wait for each in samples) == pytest.approx(report.asked.score.wait_p999)
    assert max(each.ready for each in samples) > 0
    assert samples[-1].at == pytest.approx(report.trace.seconds)


class _Run:
    """Only what a suggestion reads."""

    def __init__(self, dollars, wait):
        self.dollars, self.hours, self.wait_p99 = dollars, 1.0, wait


def tried(label, dollars, wait):
    return Tried(label=label, config=CONFIG, score=_Run(dollars, wait))


CHEAP, FAIR, QUICK = tried("cheap", 1.0, 60.0), tried("fair", 2.0, 8.0), tried("quick", 4.0, 1.0)


@pytest.mark.parametrize(
    ("queue", "budget", "best", "met", "said"),
    [
        (None, None, None, True, ""),
        (10.0, None, FAIR, True, "99 % of requests begin within 10 s for $2.000/h, with fair:"),
        (
            0.5,
            None,
            QUICK,
            False,
            "no tried config keeps the 99th percentile within 0.5 s; the nearest is 1.0 s for $4",
        ),
        (None, 3.0, FAIR, True, "$3/h buys a 99th percentile of 8.0 s ($2.000/h), with fair:"),
        (None, 0.1, CHEAP, False, "nothing tried costs at most $0.1/h; the least is $1.000/h, with cheap:"),
        (10.0, 3.0, FAIR, True, "99 % of requests begin within 10 s"),
        (
            2.0,
            3.0,
            QUICK,
            False,
            "within 2 s for at most $3/h; the cheapest that is so quick costs $4.000/h, with quick:",
        ),
    ],
)
def test_a_suggestion_is_the_cheapest_or_the_quickest_that_was_wished_for(queue, budget, best, met, said):
    found = suggest([CHEAP, FAIR, QUICK], queue, budget)
    assert found[0] is best
    assert said in found[1]
    assert found[2] is met


def test_what_makes_one_config_the_other_is_written_as_options():
    other = CONFIG.model_copy(update={"target_util": 0.65, "min_load": 792.0, "dollars_per_hour_max": 3.5})
    assert options(CONFIG, other) == "--min-load 792 --target-util 0.65 --budget 3.5"
    assert options(CONFIG, CONFIG) == ""
