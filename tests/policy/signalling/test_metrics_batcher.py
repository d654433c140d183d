"""When an endpoint's metrics are reported to its workflow."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.signalling.metrics_batcher import (
    Gauges,
    MetricsBatcher,
)
from policy.signalling.significance import QueueState
from policy.tuning import DEFAULT_TUNING

IDLE = Gauges()
ONE_WORKER = Gauges(workers=1)


def signals(
    batcher: MetricsBatcher,
    gauges: Gauges,
    seconds: float,
    *,
    load_per_second: float = 0.0,
    start: float = 0.0,
) -> int:
    """Number of windows sent while time passes in steps of 0.25 s."""
    sent, now = 0, start
    while now < start + seconds:
        now += 0.25
        if load_per_second:
            batcher.record_arrival(load_per_second / 4, now)
        first, again = batcher.due(gauges, now), batcher.due(gauges, now)
        assert first == again, "asking does not change the answer"
        if again is not None:
            sent += len(batcher.take_windows(gauges, now))
    return sent


def test_an_idle_endpoint_without_workers_is_not_reported() -> None:
    assert signals(MetricsBatcher(0.0), IDLE, 3600) == 0


def test_an_idle_endpoint_with_workers_sends_heartbeats() -> None:
    assert signals(MetricsBatcher(0.0), ONE_WORKER, 3600) == pytest.approx(
        3600 / DEFAULT_TUNING.metrics_heartbeat_seconds, abs=6
    )


def test_a_cold_pool_is_reported_every_ten_minutes_until_a_request_arrives() -> None:
    cold = Gauges(workers=10, workers_cold=10)
    batcher = MetricsBatcher(0.0)
    assert signals(batcher, cold, 3600) == pytest.approx(
        3600 / DEFAULT_TUNING.metrics_heartbeat_idle_seconds, abs=1
    )
    assert (
        signals(batcher, cold, 3600, load_per_second=100, start=3600.0)
        >= 3600 / DEFAULT_TUNING.metrics_heartbeat_seconds - 1
    )


def test_the_end_of_the_last_request_is_reported_with_the_next_slice() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.request_urgent("a worker is ready", 3.0)
    batcher.take_windows(Gauges(workers=1, holding=True), 3.0)
    assert batcher.due(Gauges(workers=1, holding=True), 8.0) is None
    assert batcher.due(Gauges(workers=1, holding=False), 13.0) == ""


def test_a_constant_queue_is_reported_every_ten_seconds() -> None:
    waiting = Gauges(workers=1, queue=QueueState(3, 5.0))
    assert signals(MetricsBatcher(0.0), waiting, 600) == pytest.approx(
        600 / DEFAULT_TUNING.metrics_heartbeat_queue_seconds, abs=3
    )


def test_steady_load_is_reported_once_and_then_by_heartbeats() -> None:
    assert (
        signals(MetricsBatcher(0.0), ONE_WORKER, 3600, load_per_second=100)
        <= 3600 / DEFAULT_TUNING.metrics_heartbeat_seconds + 2
    )


def test_changing_load_is_reported_every_five_seconds() -> None:
    batcher, sent = MetricsBatcher(0.0), 0
    for step in range(20):  # the rate doubles or halves every 5 s
        sent += signals(batcher, ONE_WORKER, 5, load_per_second=100 * (1 + step % 2), start=5.0 * step)
    assert 18 <= sent <= 22


def test_the_spread_places_the_first_slice_and_the_first_heartbeat() -> None:
    # 0.05 of the heartbeat are 3 s, so 2 s of the first slice are left; 0.5 of it are 30 s
    assert MetricsBatcher(100.0, spread=0.05).not_due_before(None) == pytest.approx(102.0)
    batcher = MetricsBatcher(100.0, spread=0.5)
    due = [second for second in range(100, 161, 5) if batcher.due(ONE_WORKER, second) is not None]
    assert due[0] == 130


def test_a_window_without_requests_is_reported_after_load_and_not_after_another() -> None:
    batcher = MetricsBatcher(0.0)
    assert batcher.due(ONE_WORKER, 5.0) is None
    assert [window.seconds for window in batcher.take_windows(ONE_WORKER, 7.0)] == [2.0]
    batcher.record_arrival(100.0, 8.0)
    batcher.take_windows(ONE_WORKER, 12.0)
    assert batcher.due(ONE_WORKER, 17.0) is None, "one request more or less is chance"
    windows = batcher.take_windows(ONE_WORKER, 19.0)
    assert [(window.seconds, window.load) for window in windows] == [(5.0, 0.0), (2.0, 0.0)]


def test_a_later_request_is_due_when_half_of_a_short_inactivity_timeout_is_over() -> None:
    batcher, gauges = MetricsBatcher(0.0), Gauges(workers=1, inactivity_timeout=4.0)
    batcher.record_arrival(100.0, 1.0)
    batcher.take_windows(gauges, 1.0)
    batcher.record_activity(2.0)
    assert batcher.due(gauges, 2.9) is None
    assert batcher.not_due_before(4.0) == 3.0
    assert batcher.due(gauges, 3.0) == ""


def test_an_urgent_cause_is_still_due_later() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.request_urgent("first request", 1.0)
    assert batcher.due(IDLE, 1.2) == "first request"


def test_an_urgent_cause_is_due_at_once_and_again_only_after_a_gap() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.request_urgent("first request", 1.0)
    assert batcher.due(IDLE, 1.0) == "first request"
    batcher.take_windows(IDLE, 1.0)

    batcher.request_urgent("first request", 1.01)
    assert batcher.due(IDLE, 1.01) is None
    assert batcher.urgent_due_at() == pytest.approx(1.1)
    assert batcher.due(IDLE, 1.1) == "first request"


def test_another_cause_does_not_wait_for_the_gap_of_the_first() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.request_urgent("a worker is ready", 1.0)
    batcher.take_windows(IDLE, 1.0)
    batcher.request_urgent("a worker reports an error", 1.01)
    assert batcher.due(IDLE, 1.01) == "a worker reports an error"


def test_a_repeated_urgent_cause_makes_at_most_ten_batches_a_second() -> None:
    batcher, sent = MetricsBatcher(0.0), 0
    for millisecond in range(1000):
        now = millisecond / 1000
        batcher.request_urgent("queue over target", now)
        if batcher.due(IDLE, now) is not None:
            sent += len(batcher.take_windows(IDLE, now))
    assert sent <= 11


def test_arrivals_add_up_over_all_batches_and_their_windows_cover_the_time_once() -> None:
    batcher, windows, now = MetricsBatcher(0.0), [], 0.0
    for step in range(2000):
        now = step * 0.1
        batcher.record_arrival(1.0 if step < 1000 else 5.0, now)
        if step % 137 == 0:
            batcher.request_urgent(f"cause {step}", now)
        if batcher.due(ONE_WORKER, now) is not None:
            windows += batcher.take_windows(ONE_WORKER, now)
    windows += batcher.take_windows(ONE_WORKER, now)
    assert sum(w.load for w in windows) == pytest.approx(1000 * 1 + 1000 * 5)
    assert sum(w.requests for w in windows) == 2000
    assert sum(w.seconds for w in windows) == pytest.approx(now)


def test_a_burst_after_steady_load_is_a_window_of_its_own() -> None:
    batcher = MetricsBatcher(0.0)
    signals(batcher, ONE_WORKER, 40, load_per_second=10)  # reported at 5 s, steady since
    for _ in range(100):
        batcher.record_arrival(10, 40.5)
    batcher.request_urgent("queue over target", 40.5)

    calm, burst = batcher.take_windows(ONE_WORKER, 40.5)

    assert calm.load / calm.seconds == pytest.approx(10, rel=0.01)
    assert (burst.load, burst.requests) == (1000, 100)
    assert burst.seconds <= 5
    assert calm.ended_at < burst.ended_at == 40.5


def test_a_queue_that_appears_or_empties_is_reported() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.take_windows(ONE_WORKER, 0.0)
    assert batcher.due(Gauges(workers=1, queue=QueueState(3)), 5.0) == ""
    batcher.take_windows(Gauges(workers=1, queue=QueueState(3)), 5.0)
    assert batcher.due(Gauges(workers=1, queue=QueueState(3)), 10.0) is None
    assert batcher.due(ONE_WORKER, 15.0) == ""


def test_an_expected_queue_time_below_half_of_the_target_is_not_reported_by_itself() -> None:
    batcher = MetricsBatcher(0.0)
    batcher.take_windows(ONE_WORKER, 0.0)
    assert batcher.due(Gauges(workers=1, queue=QueueState.of(0, 4.9, 10.0)), 5.0) is None
    assert batcher.due(Gauges(workers=1, queue=QueueState.of(0, 5.1, 10.0)), 10.0) == ""


def test_poisson_arrivals_make_fewer_batches_than_slices() -> None:
    chance, batcher, now, sent = random.Random(7), MetricsBatcher(0.0), 0.0, 0
    next_at = chance.expovariate(0.5)
    for tick in range(1, 14_401):  # an hour of a request every other second
        now = tick / 4
        while next_at <= now:
            batcher.record_arrival(100.0 * chance.expovariate(1.0), next_at)
            next_at += chance.expovariate(0.5)
        if batcher.due(ONE_WORKER, now) is not None:
            batcher.take_windows(ONE_WORKER, now)
            sent += 1
    assert (
        3600 / DEFAULT_TUNING.metrics_heartbeat_seconds
        <= sent
        < 0.6 * 3600 / DEFAULT_TUNING.metrics_slice_seconds
    )


def test_a_rise_too_small_for_one_slice_is_reported_after_several() -> None:
    batcher = MetricsBatcher(0.0)
    for request in range(5):
        batcher.record_arrival(100.0, request)
    batcher.take_windows(ONE_WORKER, 5.0)
    reported_at = None
    for second in range(5, 60):  # seven requests in each slice; five were reported
        for _ in range(7 if second % 5 == 0 else 0):
            batcher.record_arrival(100.0, second + 0.5)
        if reported_at is None and batcher.due(ONE_WORKER, second + 1.0) is not None:
            reported_at = second + 1.0
    assert reported_at is not None
    assert 10.0 < reported_at < 60.0, "after the first slice and before the heartbeat"


@pytest.mark.parametrize(
    ("timeout", "every"), [(12.0, 2.0), (12.0, 9.0), (60.0, 3.0), (60.0, 55.0), (3.0, 1.0), (600.0, 2.0)]
)
def test_steady_requests_are_reported_before_the_inactivity_timeout(timeout: float, every: float) -> None:
    """The workflow counts inactivity_timeout from the last reported request."""
    batcher, gauges = MetricsBatcher(0.0), Gauges(workers=1, inactivity_timeout=timeout)
    known: float | None = None
    sent, idle = 0, []
    seconds = 20 * max(timeout, 30.0)
    for tick in range(1, int(seconds * 4)):
        now = tick / 4
        if now % every == 0:
            batcher.record_arrival(100.0, now)
        if batcher.due(gauges, now) is not None:
            batcher.take_windows(gauges, now)
            known, sent = batcher.last_request_at, sent + 1
        if known is not None:
            idle.append(now - known)
    # delivery of a signal takes up to 0.4 s
    assert max(idle) < timeout - 0.4
    assert sent <= 4 * seconds / timeout + seconds / DEFAULT_TUNING.metrics_heartbeat_seconds + 20, (
        "not every request is reported"
    )


@given(st.integers(0, 2**32), st.sampled_from([None, 3.0, 30.0, 600.0]))
def test_nothing_is_due_before_the_time_that_not_due_before_names(seed: int, timeout: float | None) -> None:
    chance = random.Random(seed)
    batcher, now, rested, reported = MetricsBatcher(0.0, spread=chance.random()), 0.0, 0, 0
    for _ in range(300):
        now += chance.choice([0.01, 0.25, 1.0])
        if chance.random() < 0.5:
            batcher.record_arrival(chance.choice([1.0, 100.0]), now)
        if chance.random() < 0.1:
            batcher.mark_changed()
        if chance.random() < 0.02:
            batcher.request_urgent(chance.choice(["a", "b"]), now)
        gauges = Gauges(
            queue=QueueState(chance.choice([0, 0, 5])),
            workers=chance.choice([0, 3]),
            holding=chance.random() < 0.5,
            inactivity_timeout=timeout,
        )
        resting = now < batcher.not_due_before(timeout)
        if batcher.due(gauges, now) is not None:
            assert not resting
            batcher.take_windows(gauges, now)
            reported += 1
        rested += resting
    assert rested > 0
    assert reported > 0
