"""When an endpoint's workflow is told: pure, the time is given."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.signalling.metrics_batcher import (
    COLD_HEARTBEAT_SECONDS,
    HEARTBEAT_SECONDS,
    QUEUE_HEARTBEAT_SECONDS,
    SLICE_SECONDS,
    Level,
    MetricsBatcher,
)
from policy.signalling.significance import Waiting

IDLE = Level()
ONE_WORKER = Level(workers=1)


def signals(
    pulse: MetricsBatcher, level: Level, seconds: float, *, load_per_second: float = 0.0, start: float = 0.0
) -> int:
    """How many batches go out while time passes, a quarter of a second at a time."""
    sent, now = 0, start
    while now < start + seconds:
        now += 0.25
        if load_per_second:
            pulse.arrived(load_per_second / 4, now)
        first, again = pulse.due(level, now), pulse.due(level, now)
        assert first == again, "the herald asks twice"
        if again is not None:
            sent += len(pulse.take(level, now))
    return sent


def test_an_idle_endpoint_without_workers_is_never_mentioned() -> None:
    assert signals(MetricsBatcher(0.0), IDLE, 3600) == 0


def test_an_idle_endpoint_with_workers_costs_a_heartbeat() -> None:
    assert signals(MetricsBatcher(0.0), ONE_WORKER, 3600) == pytest.approx(3600 / HEARTBEAT_SECONDS, abs=6)


def test_a_cold_pool_costs_a_word_in_ten_minutes_and_an_arrival_ends_that() -> None:
    cold = Level(workers=10, workers_cold=10)
    pulse = MetricsBatcher(0.0)
    assert signals(pulse, cold, 3600) == pytest.approx(3600 / COLD_HEARTBEAT_SECONDS, abs=1)
    assert signals(pulse, cold, 3600, load_per_second=100, start=3600.0) >= 3600 / HEARTBEAT_SECONDS - 1


def test_the_end_of_the_last_request_is_told_with_the_next_slice() -> None:
    pulse = MetricsBatcher(0.0)
    pulse.urge("a worker is ready", 3.0)
    pulse.take(Level(workers=1, holding=True), 3.0)
    assert pulse.due(Level(workers=1, holding=True), 8.0) is None
    assert pulse.due(Level(workers=1, holding=False), 13.0) == ""


def test_a_queue_is_told_every_ten_seconds_even_when_it_does_not_move() -> None:
    waiting = Level(workers=1, waiting=Waiting(3, 5.0))
    assert signals(MetricsBatcher(0.0), waiting, 600) == pytest.approx(600 / QUEUE_HEARTBEAT_SECONDS, abs=3)


def test_a_busy_but_steady_endpoint_costs_a_heartbeat_after_its_rate_was_told() -> None:
    assert signals(MetricsBatcher(0.0), ONE_WORKER, 3600, load_per_second=100) <= 3600 / HEARTBEAT_SECONDS + 2


def test_a_changing_load_is_told_every_five_seconds() -> None:
    pulse, sent = MetricsBatcher(0.0), 0
    for step in range(20):  # the rate doubles or halves every 5 s
        sent += signals(pulse, ONE_WORKER, 5, load_per_second=100 * (1 + step % 2), start=5.0 * step)
    assert 18 <= sent <= 22


def test_something_urgent_is_due_at_once_and_the_same_again_only_after_a_gap() -> None:
    pulse = MetricsBatcher(0.0)
    pulse.urge("first request", 1.0)
    assert pulse.due(IDLE, 1.0) == "first request"
    pulse.take(IDLE, 1.0)

    pulse.urge("first request", 1.01)
    assert pulse.due(IDLE, 1.01) is None
    assert pulse.urgent_at() == pytest.approx(1.1)
    assert pulse.due(IDLE, 1.1) == "first request"


def test_another_cause_does_not_wait_for_the_gap_of_the_first() -> None:
    pulse = MetricsBatcher(0.0)
    pulse.urge("a worker is ready", 1.0)
    pulse.take(IDLE, 1.0)
    pulse.urge("a worker reports an error", 1.01)
    assert pulse.due(IDLE, 1.01) == "a worker reports an error"


def test_a_burst_of_the_same_urgent_news_is_ten_batches_a_second_at_most() -> None:
    pulse, sent = MetricsBatcher(0.0), 0
    for millisecond in range(1000):
        now = millisecond / 1000
        pulse.urge("queue over target", now)
        if pulse.due(IDLE, now) is not None:
            sent += len(pulse.take(IDLE, now))
    assert sent <= 11


def test_arrivals_add_up_over_all_batches_and_their_windows_cover_the_time_once() -> None:
    pulse, windows, now = MetricsBatcher(0.0), [], 0.0
    for step in range(2000):
        now = step * 0.1
        pulse.arrived(1.0 if step < 1000 else 5.0, now)
        if step % 137 == 0:
            pulse.urge(f"cause {step}", now)
        if pulse.due(ONE_WORKER, now) is not None:
            windows += pulse.take(ONE_WORKER, now)
    windows += pulse.take(ONE_WORKER, now)
    assert sum(w.load for w in windows) == pytest.approx(1000 * 1 + 1000 * 5)
    assert sum(w.requests for w in windows) == 2000
    assert sum(w.seconds for w in windows) == pytest.approx(now)


def test_a_burst_after_a_steady_stretch_is_a_window_of_its_own() -> None:
    pulse = MetricsBatcher(0.0)
    signals(pulse, ONE_WORKER, 40, load_per_second=10)  # told at 5 s, steady since
    for _ in range(100):
        pulse.arrived(10, 40.5)
    pulse.urge("queue over target", 40.5)

    calm, burst = pulse.take(ONE_WORKER, 40.5)

    assert calm.load / calm.seconds == pytest.approx(10, rel=0.01)
    assert (burst.load, burst.requests) == (1000, 100)
    assert burst.seconds <= 5
    assert calm.ended_at < burst.ended_at == 40.5


def test_a_queue_that_appears_or_empties_is_news() -> None:
    pulse = MetricsBatcher(0.0)
    pulse.take(ONE_WORKER, 0.0)
    assert pulse.due(Level(workers=1, waiting=Waiting(3)), 5.0) == ""
    pulse.take(Level(workers=1, waiting=Waiting(3)), 5.0)
    assert pulse.due(Level(workers=1, waiting=Waiting(3)), 10.0) is None
    assert pulse.due(ONE_WORKER, 15.0) == ""


def test_an_expected_wait_far_below_the_target_is_told_with_other_news_only() -> None:
    pulse = MetricsBatcher(0.0)
    pulse.take(ONE_WORKER, 0.0)
    assert pulse.due(Level(workers=1, waiting=Waiting.of(0, 4.9, 10.0)), 5.0) is None
    assert pulse.due(Level(workers=1, waiting=Waiting.of(0, 5.1, 10.0)), 10.0) == ""


def test_arrivals_by_chance_cost_far_fewer_batches_than_slices() -> None:
    chance, pulse, now, sent = random.Random(7), MetricsBatcher(0.0), 0.0, 0
    next_at = chance.expovariate(0.5)
    for tick in range(1, 14_401):  # an hour of a request every other second
        now = tick / 4
        while next_at <= now:
            pulse.arrived(100.0 * chance.expovariate(1.0), next_at)
            next_at += chance.expovariate(0.5)
        if pulse.due(ONE_WORKER, now) is not None:
            pulse.take(ONE_WORKER, now)
            sent += 1
    assert 3600 / HEARTBEAT_SECONDS <= sent < 0.6 * 3600 / SLICE_SECONDS


def test_a_rise_too_small_for_one_slice_is_told_once_it_has_lasted() -> None:
    pulse = MetricsBatcher(0.0)
    for request in range(5):
        pulse.arrived(100.0, request)
    pulse.take(ONE_WORKER, 5.0)
    told_at = None
    for second in range(5, 60):  # seven requests in each slice, told were five
        for _ in range(7 if second % 5 == 0 else 0):
            pulse.arrived(100.0, second + 0.5)
        if told_at is None and pulse.due(ONE_WORKER, second + 1.0) is not None:
            told_at = second + 1.0
    assert told_at is not None
    assert 10.0 < told_at < 60.0, "neither at the first slice, nor only with the heartbeat"


@pytest.mark.parametrize(
    ("timeout", "every"), [(12.0, 2.0), (12.0, 9.0), (60.0, 3.0), (60.0, 55.0), (3.0, 1.0), (600.0, 2.0)]
)
def test_a_busy_endpoint_is_never_taken_for_idle_however_steady_its_requests(
    timeout: float, every: float
) -> None:
    """The workflow counts inactivity_timeout from the last request that it was told of."""
    pulse, level = MetricsBatcher(0.0), Level(workers=1, inactivity_timeout=timeout)
    known: float | None = None
    sent, idle = 0, []
    seconds = 20 * max(timeout, 30.0)
    for tick in range(1, int(seconds * 4)):
        now = tick / 4
        if now % every == 0:
            pulse.arrived(100.0, now)
        if pulse.due(level, now) is not None:
            pulse.take(level, now)
            known, sent = pulse.last_request_at, sent + 1
        if known is not None:
            idle.append(now - known)
    # a signal takes a moment
    assert max(idle) < timeout - 0.4
    assert sent <= 4 * seconds / timeout + seconds / HEARTBEAT_SECONDS + 20, "and not every request is told"


@given(st.integers(0, 2**32), st.sampled_from([None, 3.0, 30.0, 600.0]))
def test_while_it_rests_nothing_is_due_whatever_arrives_or_waits(seed: int, timeout: float | None) -> None:
    chance = random.Random(seed)
    pulse, now, rested, told = MetricsBatcher(0.0, spread=chance.random()), 0.0, 0, 0
    for _ in range(300):
        now += chance.choice([0.01, 0.25, 1.0])
        if chance.random() < 0.5:
            pulse.arrived(chance.choice([1.0, 100.0]), now)
        if chance.random() < 0.1:
            pulse.touch()
        if chance.random() < 0.02:
            pulse.urge(chance.choice(["a", "b"]), now)
        level = Level(
            waiting=Waiting(chance.choice([0, 0, 5])),
            workers=chance.choice([0, 3]),
            holding=chance.random() < 0.5,
            inactivity_timeout=timeout,
        )
        resting = now < pulse.rests_until(timeout)
        if pulse.due(level, now) is not None:
            assert not resting
            pulse.take(level, now)
            told += 1
        rested += resting
    assert rested > 0
    assert told > 0
