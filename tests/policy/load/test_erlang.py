"""The queueing model against closed forms and a simulated queue."""

import heapq
import math
import random

import pytest

from policy.load.erlang import erlang_c, expected_wait


def test_erlang_c_of_one_worker_is_its_utilisation() -> None:
    assert erlang_c(1, 0.7) == pytest.approx(0.7)  # M/M/1: an arrival waits with probability rho


def test_erlang_c_of_two_workers_matches_the_closed_form() -> None:
    # M/M/2 with a = 1: C = a² / (2 (1 - a/2)) / (1 + a + a² / (2 (1 - a/2))) = 1 / 3
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)


def test_the_wait_is_zero_without_arrivals_and_for_missing_capacity() -> None:
    for arrivals, capacity in ((0.0, 100.0), (100.0, 100.0), (200.0, 100.0), (10.0, 0.0)):
        found = expected_wait(arrivals, capacity, perf=100, cost=10, spread=2, limit=10)
        assert (found.mean_seconds, found.late_share) == (0.0, 0.0)


def test_the_mean_wait_of_one_worker_matches_m_m_1() -> None:
    # M/M/1, 0.5 requests/s of mean 1 s: W = rho / (mu - lambda) = 0.5 / 0.5 = 1 s
    found = expected_wait(50, 100, perf=100, cost=100, spread=2, limit=4)
    assert found.mean_seconds == pytest.approx(1.0)
    assert found.late_share == pytest.approx(0.5 * math.exp(-0.5 * 4))
    # M/D/1 waits half as long
    assert expected_wait(50, 100, perf=100, cost=100, spread=1, limit=4).mean_seconds == pytest.approx(0.5)


def test_the_wait_is_unknown_without_perf_or_cost() -> None:
    for perf, cost in ((0.0, 10.0), (10.0, 0.0), (-1.0, 10.0), (10.0, -1.0)):
        found = expected_wait(50, 100, perf=perf, cost=cost, spread=2, limit=10)
        assert (found.mean_seconds, found.late_share) == (0.0, 0.0)
    # below one: the same as a hundred times all of it
    small = expected_wait(0.4, 0.8, perf=0.8, cost=0.8, spread=2, limit=4)
    assert small.mean_seconds == pytest.approx(1.0)


def test_the_number_of_workers_is_at_least_one_and_bounded() -> None:
    assert expected_wait(50, 100, perf=1000, cost=100, spread=2, limit=4).mean_seconds == pytest.approx(1.0)
    assert expected_wait(1e15, 2e15, perf=1.0, cost=1.0, spread=2, limit=4).mean_seconds < 1e-9


@pytest.mark.parametrize(("busy", "waits"), [(-1.0, 0.0), (0.0, 0.0), (2.0, 1.0), (3.0, 1.0)])
def test_no_load_never_waits_and_overload_always_does(busy: float, waits: float) -> None:
    assert erlang_c(2, busy) == waits


@pytest.mark.parametrize(("workers", "utilisation"), [(4, 0.8), (8, 0.9)])
def test_the_estimate_matches_a_simulated_queue(workers: int, utilisation: float) -> None:
    draw = random.Random(5)
    free = [0.0] * workers
    now, waits = 0.0, []
    for _ in range(200_000):
        now += draw.expovariate(utilisation * workers)
        begin = max(now, heapq.heappop(free))
        waits.append(begin - now)
        heapq.heappush(free, begin + draw.expovariate(1.0))
    found = expected_wait(utilisation * workers, workers, perf=1, cost=1, spread=2, limit=2.0)
    assert found.mean_seconds == pytest.approx(sum(waits) / len(waits), rel=0.1)
    assert found.late_share == pytest.approx(sum(wait > 2 for wait in waits) / len(waits), rel=0.15)


def test_more_capacity_never_increases_the_wait() -> None:
    waits = [
        expected_wait(80, 100 + more, perf=10, cost=20, spread=1.7, limit=5).mean_seconds
        for more in range(0, 100, 10)
    ]
    assert waits == sorted(waits, reverse=True)
