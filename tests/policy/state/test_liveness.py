"""Workers that have stopped reporting are suspected, unless most of them have."""

import pytest

from policy.state.liveness import mark_unresponsive, unresponsive_since
from policy.state.worker import MachineStats
from policy.state.worker_events import fold_metrics
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, report, see, steady, worker

SILENT = NOW - DEFAULT_TUNING.unresponsive_seconds - 1


def suspected(*, silent: int, reporting: int, rebooting: int = 0) -> int:
    workers = [worker(f"silent{number}", reported_at=SILENT) for number in range(silent)]
    workers += [worker(f"ready{number}") for number in range(reporting)]
    workers += [worker(f"rebooting{number}", S.REBOOTING, since=NOW - 5) for number in range(rebooting)]
    marked = mark_unresponsive(see(*workers, load=steady(90)), DEFAULT_TUNING)
    return sum(each.suspect_since == SILENT for each in marked.workers)


@pytest.mark.parametrize(
    ("fleet", "count"),
    [
        ({"silent": 1, "reporting": 0}, 1),
        ({"silent": 1, "reporting": 1}, 1),
        ({"silent": 2, "reporting": 1}, 0),
        ({"silent": 2, "reporting": 2}, 2),
        ({"silent": 3, "reporting": 2}, 0),
        ({"silent": 1, "reporting": 1, "rebooting": 1}, 0),
        ({"silent": 1, "reporting": 2, "rebooting": 1}, 1),
        ({"silent": 1, "reporting": 4, "rebooting": 3}, 1),
        ({"silent": 1, "reporting": 3, "rebooting": 3}, 0),
        ({"silent": 0, "reporting": 2}, 0),
    ],
)
def test_workers_are_suspected_while_at_most_half_do_not_report(fleet, count):
    assert suspected(**fleet) == count


@pytest.mark.parametrize(("seconds", "silent"), [(0, False), (1, True)])
def test_a_worker_is_unresponsive_after_a_time_without_reports(seconds, silent):
    at = NOW - DEFAULT_TUNING.unresponsive_seconds - seconds
    about = worker("w", reported_at=at)
    seen = see(about, load=steady(90))
    assert unresponsive_since(about, seen, DEFAULT_TUNING) == (at if silent else None)
    listening = see(about, load=steady(90), listening_since=at + 2)
    assert unresponsive_since(about, listening, DEFAULT_TUNING) is None
    started = worker("w", reported_at=None, since=at + 2)
    assert unresponsive_since(started, seen, DEFAULT_TUNING) is None


@pytest.mark.parametrize(("at", "cleared"), [(NOW - 11, False), (NOW - 10, False), (NOW - 9, True)])
def test_only_a_report_after_the_suspicion_clears_it(at, cleared):
    about = worker("w", suspect_since=NOW - 10, reported_at=NOW - 60)
    folded = fold_metrics(about, report(reported_at=at, perf=100.0), now=NOW, learned=MachineStats())
    assert (folded.worker.suspect_since is None) is cleared
