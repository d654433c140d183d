"""Bounds for reported perfs: a false report attracts a bounded share of requests and is not recorded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.capacity.perf_bounds import perf_bound
from policy.routing.worker_selection import Candidate, choose
from policy.state.worker import KindRecord, MachineStats
from policy.state.worker_events import fold_metrics
from policy.tuning import DEFAULT_TUNING as TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, report, worker

KIND, OTHER = "1x RTX 4090", "1x H100"


def fleet(*perfs, kind=KIND):
    return [worker(f"peer{number}", perf=perf, kind=kind) for number, perf in enumerate(perfs)]


def record(perf, samples, kind=KIND):
    return MachineStats(kinds=(KindRecord(workergroup_id=1, kind=kind, perf=perf, samples=samples),))


def fold_report(about, perf, beside=(), learned=None):
    return fold_metrics(
        about, report(perf=perf), now=NOW, learned=learned or MachineStats(), fleet=[about, *beside]
    )


@pytest.mark.parametrize(
    ("claimed", "counts"),
    [
        (100.0, 100.0),
        (300.0, 300.0),  # three times its kind: exactly the bound
        (301.0, 300.0),
        (1e12, 300.0),
        (0.001, 0.001),  # no lower bound
    ],
)
def test_a_worker_counts_for_at_most_three_times_its_kind(claimed, counts):
    about = worker("new", S.MODEL_LOADING, perf=0.0)
    folded = fold_report(about, claimed, fleet(90.0, 100.0, 100.0))
    assert folded.worker.state is S.READY
    assert folded.worker.perf == pytest.approx(counts)


def test_the_bound_is_logged_with_its_reason():
    folded = fold_report(worker("rogue", S.MODEL_LOADING, perf=0.0), 1e9, fleet(100.0, 100.0))
    assert folded.lines[-1] == (
        "rogue (1x RTX 4090) reports 1000000000 load/s, but other workers of its kind reach 100; it counts as 300"
    )


def test_the_bound_is_logged_once():
    rogue = fold_report(worker("rogue", S.MODEL_LOADING, perf=0.0), 1e9, fleet(100.0, 100.0)).worker
    again = fold_report(rogue, 1e9, fleet(101.0, 102.0))
    assert (again.lines, again.worker.perf) == ((), 300.0)


def test_a_single_worker_is_bounded_once_it_has_peers():
    alone = fold_report(worker("rogue", S.MODEL_LOADING, perf=0.0), 1e9)
    assert alone.worker.perf == 1e9
    found_out = fold_report(alone.worker, 1e9, fleet(100.0, 110.0), alone.learned)
    assert found_out.worker.perf == 330.0
    # Its kind's record, which ranks the next offers, is lowered too.
    assert found_out.learned.kind(1, KIND).perf <= 330.0


def test_without_two_peers_the_record_of_the_kind_is_the_bound():
    about = worker("new", S.MODEL_LOADING, perf=0.0)
    assert fold_report(about, 1e9, fleet(100.0), record(100.0, 3)).worker.perf == 300.0
    assert fold_report(about, 1e9, fleet(100.0), record(100.0, 2)).worker.perf == 1e9
    assert fold_report(about, 1e9, fleet(100.0), record(0.5, 3)).worker.perf == 1.5


def test_the_first_worker_of_a_kind_is_bounded_by_other_kinds():
    about = worker("new", S.MODEL_LOADING, perf=0.0)
    beside = fleet(10.0, 20.0, 10.0, kind=OTHER)
    assert fold_report(about, 499.0, beside).worker.perf == 499.0
    assert fold_report(about, 1e9, beside).worker.perf == 10.0 * TUNING.perf_over_workergroup_max


def test_other_workergroups_do_not_bound_it():
    about = worker("new", S.MODEL_LOADING, perf=0.0, workergroup_id=2)
    assert perf_bound(about, fleet(100.0, 100.0), MachineStats()) is None


@given(st.floats(1e-9, 1e12), st.lists(st.floats(90, 110), min_size=2, max_size=20))
def test_one_false_report_does_not_move_the_bound_of_others(lie, honest):
    liar = worker("liar", perf=lie)
    peers = fleet(*honest)
    for about in peers:
        bound = perf_bound(about, [liar, *peers], MachineStats())
        if bound is not None and len(honest) >= 3:
            assert bound.perf >= about.perf
    assert perf_bound(liar, peers, MachineStats()).perf <= TUNING.perf_over_kind_max * 110


@given(st.floats(0.0, 1e12))
def test_a_false_perf_attracts_a_bounded_share_of_requests(claimed):
    honest = fleet(100.0, 100.0, 100.0)
    about = fold_report(worker("rogue", S.MODEL_LOADING, perf=0.0), claimed, honest).worker
    candidates = [Candidate(each.launch_id, perf=each.perf) for each in [about, *honest]]
    drawn = 0
    for number in range(300):
        taken = choose(candidates, 1.0, max_queue_time=1e9, sequence=number).candidate
        taken.outstanding += 1.0
        drawn += taken.launch_id == "rogue"
    # At most three of six parts, plus rounding by the last request.
    assert drawn <= 300 * 3 / 6 + 2


def test_a_faster_machine_of_the_same_kind_is_accepted():
    about = worker("fast", perf=100.0)
    folded = fold_report(about, 140.0, fleet(100.0, 100.0))
    assert folded.worker.perf == 140.0
    assert replace(folded, lines=()).worker is folded.worker
