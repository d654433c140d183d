"""Serial workers: progress of the running request, and how early the next one is dispatched."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import (
    AllBusy,
    Candidate,
    Choice,
    Full,
    PrefetchLimits,
    choose,
    prefetch_limits,
)
from policy.tuning import DEFAULT_TUNING

LIMITS = PrefetchLimits(queue_seconds=1.0, finish_seconds=4.0)


def exact():
    """Requests take exactly their declared time."""
    service_times = ServiceTimes()
    for _ in range(4000):
        service_times.learn(100.0, 100.0, 1.0)
    return service_times


SERVICE_TIMES = exact()


def busy(
    name, cost, *, perf=100.0, since=0.0, seen=0.0, queued_load=0.0, within=0.5, service_times=SERVICE_TIMES
):
    candidate = Candidate(name, perf=perf, outstanding=cost + queued_load)
    candidate.set_running(
        cost,
        queued_load=queued_load,
        started_at=since,
        seen_at=seen,
        end_report_seconds=within,
        service_times=service_times,
    )
    return candidate


def idle(name, perf=100.0):
    candidate = Candidate(name, perf=perf)
    candidate.set_idle(SERVICE_TIMES, 0.5)
    return candidate


def ask(*candidates, cost=1000.0, now=0.0, limit=30.0, limits=LIMITS):
    return choose(candidates, cost, max_queue_time=limit, now=now, prefetch=limits)


def test_work_done_since_the_last_report_is_subtracted():
    # 1000 at 100 load/s, running for 4 s: 6 s are left
    assert busy("w", 1000.0, seen=4.0).queue_seconds(4.0) == pytest.approx(6.0, rel=0.15)
    assert busy("w", 1000.0, seen=0.0).queue_seconds(4.0) == pytest.approx(6.0, rel=0.15)


def test_an_overdue_request_without_a_report_of_its_end_still_runs():
    worker = busy("w", 1000.0)
    assert worker.queue_seconds(11.5) > 0.5
    assert worker.seen_at == 11.0


def test_an_overdue_request_may_have_ended_if_the_last_report_is_old():
    worker = busy("w", 1000.0, within=20.0)
    assert (worker.queue_seconds(15.0), worker.seen_at) == (0.0, 0.0)


def test_the_end_is_counted_from_the_start_of_the_request():
    # 10 s at 100 load/s from 100 s on: at 104 s, 6 s are left
    assert busy("w", 1000.0, since=100.0, seen=104.0).queue_seconds(104.0) == pytest.approx(6.0, rel=0.15)
    # 1.5 s at 100 load/s, and 2 s at half a unit of load per second
    assert busy("w", 150.0).expected_end_at == pytest.approx(1.5, rel=0.15)
    assert busy("w", 1.0, perf=0.5).expected_end_at == pytest.approx(2.0, rel=0.15)


def test_waiting_requests_take_the_mean_ratio_of_their_declared_time():
    service_times = ServiceTimes()
    for _ in range(4000):
        service_times.learn(100.0, 100.0, 1.5)
    for perf in (100.0, 0.5):
        worker = busy("w", 1000.0, perf=perf, queued_load=250.0, service_times=service_times)
        waiting = 250.0 * service_times.mean_ratio / perf
        assert worker.free_at - worker.expected_end_at == pytest.approx(waiting)


def test_a_worker_without_perf_is_expected_to_end_when_it_was_seen():
    worker = busy("w", 1000.0, perf=0.0, seen=4.0, queued_load=250.0)
    assert (worker.expected_end_at, worker.free_at) == (4.0, 4.0)


def test_a_request_on_a_serial_worker_takes_the_ratio_of_its_declared_time():
    # 250 at 100 load/s: 2.5 s declared, 1.5 times that
    chosen = choose([idle("w")], 250.0, max_queue_time=30.0, cost_ratio=1.5)
    assert isinstance(chosen, Choice)
    assert (chosen.queue_seconds, chosen.finish_seconds) == (0.0, 3.75)


@pytest.mark.parametrize(("owner", "seconds"), [(idle("w"), 3.75), (Candidate("w", perf=100.0), 2.5)])
def test_an_owner_saves_its_share_of_the_time_on_it(owner, seconds):
    chosen = choose([owner], 250.0, max_queue_time=30.0, cost_ratio=1.5, owners=[owner])
    assert isinstance(chosen, Choice)
    assert chosen.finish_seconds == pytest.approx(seconds * (1.0 - DEFAULT_TUNING.affinity_saved_share))


def test_equal_idle_serial_workers_take_turns():
    workers = [idle(name) for name in "abc"]
    chosen = [choose(workers, 100.0, max_queue_time=30.0, sequence=number) for number in range(4)]
    assert [each.candidate.launch_id for each in chosen if isinstance(each, Choice)] == ["a", "b", "c", "a"]


def test_a_worker_that_takes_several_requests_again_is_no_longer_serial():
    worker = busy("w", 1000.0)
    worker.set_parallel(full=False)
    assert (worker.serial, worker.parallel_perf) == (False, 100.0)
    worker.set_parallel(full=True)
    assert worker.parallel_perf == 0.0


def test_the_limits_count_the_delay_of_the_report():
    delay = DEFAULT_TUNING.prefetch_report_delays * 0.5
    limits = prefetch_limits(SERVICE_TIMES, end_report_seconds=0.5)
    assert limits is not None
    assert limits.queue_seconds == pytest.approx(DEFAULT_TUNING.prefetch_means * 1.0 + delay)
    assert limits.finish_seconds == pytest.approx(DEFAULT_TUNING.prefetch_finish_means * 1.0 + delay)


def test_a_late_report_of_the_running_request_does_not_move_its_end_back():
    worker = busy("w", 1000.0, seen=4.0)
    end = worker.expected_end_at
    report = {"queued_load": 0.0, "end_report_seconds": 0.5, "service_times": SERVICE_TIMES}
    worker.set_running(1000.0, started_at=0.0, seen_at=1.0, **report)
    assert (worker.seen_at, worker.expected_end_at) == (4.0, end)
    # another request, and what was seen of the last one says nothing about it
    worker.set_running(1000.0, started_at=2.0, seen_at=3.0, **report)
    assert worker.seen_at == 3.0


def test_a_running_request_without_cost_is_expected_to_end_when_it_was_seen():
    assert busy("w", 0.0, seen=4.0).expected_end_at == 4.0


def test_an_overdue_request_keeps_its_worker_busy():
    # 10 s declared, its end was not reported at 11.5 s
    later = ask(busy("w", 1000.0), now=11.5, limits=PrefetchLimits(queue_seconds=0.01, finish_seconds=0.01))
    assert isinstance(later, AllBusy)
    # it is estimated again from the very time of its expected end on
    worker = busy("w", 1000.0)
    now = worker.expected_end_at
    ask(worker, now=now)
    assert worker.seen_at == now - 0.5


def test_a_worker_that_is_free_in_less_than_a_second_is_not_idle():
    worker = busy("w", 1000.0)
    now = worker.expected_end_at - 0.5
    later = ask(worker, now=now, limits=PrefetchLimits(queue_seconds=0.1, finish_seconds=0.1))
    assert isinstance(later, AllBusy)
    assert later.retry_seconds == pytest.approx(0.4)


def test_a_request_waits_in_the_queue_while_all_workers_are_busy():
    later = ask(busy("a", 1000.0), busy("b", 2000.0))
    assert isinstance(later, AllBusy)
    # the best worker has about 10 s left, and gets the next request 1 s before
    assert later.retry_seconds == pytest.approx(9.0, rel=0.15)
    assert later.reason.startswith("all 2 ready worker(s) are busy (the best one is free in 1")


def test_a_request_is_dispatched_when_a_worker_is_nearly_free():
    workers = busy("a", 1000.0), busy("b", 2000.0)
    chosen = ask(*workers, now=9.5)
    assert isinstance(chosen, Choice)
    assert chosen.candidate.launch_id == "a"


def test_a_short_request_is_dispatched_if_it_finishes_soon():
    chosen = ask(busy("a", 200.0), cost=100.0)
    assert isinstance(chosen, Choice)


def test_a_request_may_go_to_a_busy_fast_worker_while_a_slow_one_is_idle():
    chosen = ask(idle("slow", 10.0), busy("fast", 1000.0, perf=100.0))
    assert isinstance(chosen, Choice)
    assert chosen.candidate.launch_id == "fast"


def test_workers_that_do_not_report_their_running_request_queue_requests():
    other = Candidate("official", perf=100.0, outstanding=2500.0)
    assert isinstance(ask(busy("a", 1000.0), other), Choice)
    assert isinstance(ask(other), Choice)


def test_max_queue_time_bounds_the_prefetch():
    assert isinstance(ask(busy("a", 1000.0), limit=5.0, limits=PrefetchLimits(100.0, 100.0)), Full)


def test_requests_are_dispatched_at_once_while_the_mean_is_unknown():
    assert prefetch_limits(ServiceTimes(), end_report_seconds=0.5) is None
    assert isinstance(ask(busy("a", 1000.0), limits=None), Choice)


def test_late_reports_extend_the_limits():
    base, wider = (
        prefetch_limits(SERVICE_TIMES, end_report_seconds=0.0),
        prefetch_limits(SERVICE_TIMES, end_report_seconds=5.0),
    )
    assert base is not None
    assert wider is not None
    assert wider > base


def test_no_request_is_dispatched_so_early_that_it_would_be_late():
    # the request is short, but the one before it takes longer than the request may wait
    worker = busy("a", 700.0)
    patient, hurried = PrefetchLimits(1.0, 30.0), PrefetchLimits(1.0, 30.0, queue_seconds_max=5.0)
    assert isinstance(ask(worker, cost=10.0, limits=patient), Choice)
    later = ask(worker, cost=10.0, limits=hurried)
    assert isinstance(later, AllBusy)
    assert later.retry_seconds == pytest.approx(later.queue_seconds - 5.0)
    bounded = prefetch_limits(SERVICE_TIMES, end_report_seconds=0.5, queue_seconds_max=5.0)
    assert bounded is not None
    assert bounded.queue_seconds_max == 6.0


drawn_workers = st.lists(
    st.tuples(
        st.sampled_from(["idle", "busy", "silent"]),
        st.sampled_from([0.0, 10.0, 100.0]),
        st.floats(0.0, 1e4),
        st.floats(0.0, 1e4),
        st.floats(0.0, 50.0),
    ),
    max_size=8,
)


@given(drawn_workers, st.floats(0.0, 1e4), st.floats(0.0, 60.0), st.floats(0.0, 100.0), st.floats(0.0, 200.0))
def test_a_choice_is_ready_and_below_the_limit_and_no_request_waits_beside_an_idle_worker(
    drawn, cost, limit, now, finish
):
    workers = []
    for number, (what, perf, running, behind, since) in enumerate(drawn):
        name = str(number)
        if what == "idle":
            worker = idle(name, perf)
        elif what == "busy":
            worker = busy(name, running, perf=perf, since=min(since, now), queued_load=behind)
        else:
            worker = Candidate(name, perf=perf, outstanding=running)
        workers.append(worker)
    limits = PrefetchLimits(finish / 4, finish)
    chosen = choose(workers, cost, max_queue_time=limit, now=now, prefetch=limits)
    able = [worker for worker in workers if worker.perf > 0]
    open_ones = [worker for worker in able if worker.queue_seconds(now) < limit]
    if isinstance(chosen, Choice):
        assert chosen.candidate in open_ones
        assert chosen.queue_seconds == chosen.candidate.queue_seconds(now) < limit
    elif isinstance(chosen, AllBusy):
        assert open_ones
        assert all(worker.serial and worker.queue_seconds(now) > 0.0 for worker in open_ones)
        assert 0.0 < chosen.retry_seconds < math.inf
    else:
        assert not open_ones


def test_the_queue_behind_the_running_request_counts_in_full():
    # 100 at 100 load/s runs, 25 waits behind it: 1.25 s, as requests take what they declare
    assert math.isclose(busy("w", 100.0, queued_load=25.0).queue_seconds(0.0), 1.25, rel_tol=0.1)


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_the_limits_are_multiples_of_the_mean_service_time(seconds):
    service_times = ServiceTimes()
    for _ in range(DEFAULT_TUNING.service_time_samples_min):
        service_times.learn(100.0, 100.0, seconds)
    limits = prefetch_limits(service_times, end_report_seconds=0.0, queue_seconds_max=100.0)
    assert math.isclose(limits.queue_seconds, DEFAULT_TUNING.prefetch_means * seconds)
    assert math.isclose(limits.finish_seconds, DEFAULT_TUNING.prefetch_finish_means * seconds)
    assert limits.queue_seconds_max == 100.0
