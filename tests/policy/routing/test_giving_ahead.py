"""Workers that take one request at a time: how far they have got, and how far ahead they are given the next."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import Ahead, Candidate, Choice, Full, Later, ahead, choose

NEAR = Ahead(queue_seconds=1.0, finish_seconds=4.0)


def exact():
    """Requests take what they declare."""
    lengths = ServiceTimes()
    for _ in range(4000):
        lengths.learn(100.0, 100.0, 1.0)
    return lengths


LENGTHS = exact()


def busy(name, cost, *, perf=100.0, since=0.0, seen=0.0, behind=0.0, within=0.5, lengths=LENGTHS):
    candidate = Candidate(name, perf=perf, outstanding=cost + behind)
    candidate.works_on(
        cost, behind=behind, started_at=since, seen_at=seen, told_within=within, lengths=lengths
    )
    return candidate


def idle(name, perf=100.0):
    candidate = Candidate(name, perf=perf)
    candidate.rests(LENGTHS, 0.5)
    return candidate


def ask(*candidates, cost=1000.0, now=0.0, limit=30.0, near=NEAR):
    return choose(candidates, cost, max_queue_time=limit, now=now, ahead=near)


def test_work_that_was_done_since_the_report_is_not_waited_for():
    # 1000 over 100 load/s, at it for 4 s: 6 s are left
    assert busy("w", 1000.0, seen=4.0).queue(4.0) == pytest.approx(6.0, rel=0.15)
    assert busy("w", 1000.0, seen=0.0).queue(4.0) == pytest.approx(6.0, rel=0.15)


def test_one_that_is_overdue_and_would_have_told_of_its_end_goes_on():
    worker = busy("w", 1000.0)
    assert worker.queue(11.5) > 0.5
    assert worker.seen_at == 11.0


def test_one_that_is_overdue_may_have_ended_while_its_word_is_old():
    assert busy("w", 1000.0, within=20.0).queue(15.0) == 0.0


def test_a_request_waits_for_who_is_free_first_rather_than_behind_a_guess():
    later = ask(busy("a", 1000.0), busy("b", 2000.0))
    assert isinstance(later, Later)
    # the best has about 10 s left, and may be given the next 1 s before
    assert later.seconds == pytest.approx(9.0, rel=0.15)
    assert later.reason.startswith("all 2 ready worker(s) are busy (the best: for another 1")


def test_it_goes_out_when_somebody_is_nearly_free():
    workers = busy("a", 1000.0), busy("b", 2000.0)
    chosen = ask(*workers, now=9.5)
    assert isinstance(chosen, Choice)
    assert chosen.candidate.launch_id == "a"


def test_a_short_one_goes_ahead_where_it_ends_soon():
    chosen = ask(busy("a", 200.0), cost=100.0)
    assert isinstance(chosen, Choice)


def test_it_may_go_to_a_busy_fast_one_while_a_slow_one_is_idle():
    chosen = ask(idle("slow", 10.0), busy("fast", 1000.0, perf=100.0))
    assert isinstance(chosen, Choice)
    assert chosen.candidate.launch_id == "fast"


def test_workers_that_do_not_say_what_they_are_at_take_requests_as_ever():
    other = Candidate("official", perf=100.0, outstanding=2500.0)
    assert isinstance(ask(busy("a", 1000.0), other), Choice)
    assert isinstance(ask(other), Choice)


def test_max_queue_time_bounds_what_is_given_ahead():
    assert isinstance(ask(busy("a", 1000.0), limit=5.0, near=Ahead(100.0, 100.0)), Full)


def test_before_the_mean_request_is_known_nothing_is_held_back():
    assert ahead(ServiceTimes(), told_within=0.5) is None
    assert isinstance(ask(busy("a", 1000.0), near=None), Choice)


def test_late_news_widen_what_is_given_ahead():
    base, wider = ahead(LENGTHS, told_within=0.0), ahead(LENGTHS, told_within=5.0)
    assert base is not None
    assert wider is not None
    assert wider > base


def test_no_request_is_given_so_far_ahead_that_it_would_be_late():
    # it would end soon after the one before it, but that one takes longer than the request may wait
    worker = busy("a", 700.0)
    patient, hurried = Ahead(1.0, 30.0), Ahead(1.0, 30.0, most_seconds=5.0)
    assert isinstance(ask(worker, cost=10.0, near=patient), Choice)
    later = ask(worker, cost=10.0, near=hurried)
    assert isinstance(later, Later)
    assert later.seconds == pytest.approx(later.queue_seconds - 5.0)
    bounded = ahead(LENGTHS, told_within=0.5, most_seconds=5.0)
    assert bounded is not None
    assert bounded.most_seconds == 6.0


workers = st.lists(
    st.tuples(
        st.sampled_from(["idle", "busy", "silent"]),
        st.sampled_from([0.0, 10.0, 100.0]),
        st.floats(0.0, 1e4),
        st.floats(0.0, 1e4),
        st.floats(0.0, 50.0),
        st.booleans(),
    ),
    max_size=8,
)


@given(workers, st.floats(0.0, 1e4), st.floats(0.0, 60.0), st.floats(0.0, 100.0), st.floats(0.0, 200.0))
def test_nobody_over_the_limit_nobody_ill_and_never_a_wait_beside_the_idle(drawn, cost, limit, now, finish):
    crowd = []
    for number, (what, perf, running, behind, since, healthy) in enumerate(drawn):
        name = str(number)
        if what == "idle":
            worker = idle(name, perf)
        elif what == "busy":
            worker = busy(name, running, perf=perf, since=min(since, now), behind=behind)
        else:
            worker = Candidate(name, perf=perf, outstanding=running)
        worker.healthy = healthy
        crowd.append(worker)
    near = Ahead(finish / 4, finish)
    chosen = choose(crowd, cost, max_queue_time=limit, now=now, ahead=near)
    able = [worker for worker in crowd if worker.healthy and worker.perf > 0]
    open_ones = [worker for worker in able if worker.queue(now) < limit]
    if isinstance(chosen, Choice):
        assert chosen.candidate in open_ones
        assert chosen.queue_seconds == chosen.candidate.queue(now) < limit
    elif isinstance(chosen, Later):
        assert open_ones
        assert all(worker.serial and worker.queue(now) > 0.0 for worker in open_ones)
        assert 0.0 < chosen.seconds < math.inf
    else:
        assert not open_ones
