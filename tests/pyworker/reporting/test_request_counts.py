"""Counts of requests and their load, without a worker."""

import pytest

from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Totals, Work


def counted(*works: Work) -> RequestCounts:
    counts = RequestCounts()
    for work in works:
        counts.accept(work)
    return counts


def test_nothing_is_counted_at_first():
    counts = RequestCounts()
    assert (counts.received, counts.refused, counts.dropped, counts.held) == (0, 0, 0, 0)
    assert (counts.load, counts.changed, counts.totals()) == (0.0, False, Totals())


def test_accepted_work_is_held_and_counted_once():
    counts = counted(Work(1, 40.0), Work(2, 7.0, is_session=True))
    assert (counts.received, counts.held, sorted(counts.held_indices())) == (2, 2, [1, 2])
    assert (counts.load, counts.queue_load) == (47.0, 40.0), "a session is not in front of a new request"
    assert counts.totals() == Totals(new=47.0)
    assert counts.changed


@pytest.mark.parametrize(
    ("outcome", "success", "totals"),
    [
        (Outcome.SUCCESS, True, Totals(new=47.0, served=40.0)),
        (Outcome.CANCELLED, True, Totals(new=7.0)),
        (Outcome.ERROR, False, Totals(new=47.0)),
    ],
)
def test_the_outcome_decides_what_counts_as_served_and_received(outcome, success, totals):
    ended = []
    counts = RequestCounts(on_work_ended=lambda: ended.append(1))
    work, other = Work(1, 40.0), Work(2, 7.0)
    counts.accept(work)
    counts.accept(other)
    counts.changed = False
    counts.finish(work, outcome)
    assert counts.totals() == totals
    assert (counts.load, counts.queue_load, counts.held, ended, counts.changed) == (7.0, 7.0, 1, [1], True)
    (item,) = counts.next_finished(10)[1]
    assert (item.request_idx, item.success, item.status) == (1, success, outcome.value)
    assert item.entered_queue_at == item.work_started_at == work.entered_at > 0, "it has not left the queue"
    assert item.work_completed_at >= work.entered_at


def test_the_start_of_work_is_reported_if_it_left_the_queue():
    counts = counted(work := Work(1, 40.0))
    work.started_at = work.entered_at + 5
    counts.finish(work, Outcome.SUCCESS)
    assert counts.next_finished(10)[1][0].work_started_at == work.entered_at + 5


def test_a_session_that_ends_leaves_the_load_of_the_queue():
    counts = counted(Work(1, 40.0), session := Work(2, 7.0, is_session=True))
    counts.finish(session, Outcome.SUCCESS)
    assert (counts.load, counts.queue_load) == (40.0, 40.0)


def test_an_idle_worker_has_exactly_no_load():
    works = [Work(number, cost) for number, cost in enumerate([0.1, 0.2, 0.3])]
    counts = counted(*works)
    for work in works:
        counts.finish(work, Outcome.SUCCESS)
    assert (counts.load, counts.queue_load) == (0.0, 0.0)  # 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 is 5.6e-17


def test_rejected_work_is_reported_and_never_held():
    ended = []
    counts = RequestCounts(on_work_ended=lambda: ended.append(1))
    counts.reject(work := Work(1, 40.0))
    counts.reject(Work(2, 5.0))
    assert (counts.totals(), counts.held, counts.received) == (Totals(rejected=45.0), 0, 0)
    assert (ended, counts.changed, counts.unreported) == ([1, 1], True, 2)
    item = counts.next_finished(1)[1][0]
    assert (item.status, item.success, item.entered_queue_at) == ("Rejected", False, work.entered_at)
    assert item.entered_queue_at > 0


def test_marks_count_from_the_start():
    works = [Work(number, 1.0) for number in range(5)]
    counts = counted(*works)
    for work in works:
        counts.finish(work, Outcome.SUCCESS)
    mark, items = counts.next_finished(2)
    assert (mark, [item.request_idx for item in items]) == (2, [0, 1])
    counts.acknowledge(mark)
    counts.acknowledge(mark)
    counts.acknowledge(mark - 1)
    assert counts.unreported == 3, "a repeated or older acknowledgement changes nothing"
    mark, items = counts.next_finished(1)
    assert (mark, [item.request_idx for item in items]) == (3, [2])
    counts.drop(mark)
    assert (counts.dropped, counts.unreported) == (1, 2)
    counts.acknowledge(99)
    assert (counts.dropped, counts.unreported) == (1, 0)
    assert counts.next_finished(10) == (5, [])
