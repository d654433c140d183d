"""Chance and habit: what a few requests prove, how much spare they need, what comes every hour."""

import pytest

from policy.chance import dispersion, proven_level, spare
from policy.load import LoadHistory, fold
from policy.recurrence import next_rise, recurring_level
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.states import WorkerState as S
from tests.policy.builders import BOOTING, COLD, NOW, brief, decide, endpoint, knows, see, steady, worker

HOUR = 3600.0


def told(buckets, *, cost=10.0, width=5.0, until=NOW):
    """A history of these loads per bucket, oldest first, in requests of `cost` load."""
    history = LoadHistory()
    for number, load in enumerate(buckets):
        at = until - (len(buckets) - 1 - number) * width
        history = fold(
            history,
            engine_id="e",
            sequence=number,
            at=at,
            window_s=width,
            load=load,
            requests=round(load / cost),
        )
    return history


def hourly(*, hours, load=600.0):
    """Each of the last hours had one minute of 10 load/s, the one that begins now + 60 s; the rest was calm."""
    history = fold(
        LoadHistory(), engine_id="e", sequence=0, at=START - hours * HOUR - 60, window_s=60, load=0
    )
    for number in range(hours, 0, -1):
        at = START + 120 - number * HOUR
        history = fold(
            history, engine_id="e", sequence=hours - number + 1, at=at, window_s=60, load=load, requests=60
        )
    return fold(history, engine_id="e", sequence=hours + 1, at=START, window_s=60, load=0)


START = (NOW // HOUR) * HOUR


def test_a_burst_of_many_requests_proves_itself_in_ten_seconds():
    history = told([50.0] * 50 + [1000.0, 1000.0])
    level, window = proven_level(history, DEFAULT_TUNING)
    # 200 load/s in requests of 10 scatter by √(200 x 10 x 1.7 / 10) = 18; the mean of a minute says only 42
    assert window == 10.0
    assert 150 < level < 200


def test_one_long_request_proves_nothing():
    history = told([100.0] * 50 + [100.0, 400.0], cost=400.0)
    level, _ = proven_level(history, DEFAULT_TUNING)
    assert level < 20.0


def test_without_counted_requests_chance_is_left_out():
    history = steady(500)
    assert proven_level(history, DEFAULT_TUNING) == (0.0, 0.0)
    assert dispersion(history, DEFAULT_TUNING) == 1.0
    assert (
        spare(500.0, mean_cost=0.0, perf=100.0, scatter=1.0, queue_seconds=10, tuning=DEFAULT_TUNING) == 0.0
    )


def test_bursts_scatter_more_than_chance_and_a_slow_rise_does_not():
    bursty = told([0.0, 0.0, 0.0, 0.0, 0.0, 1500.0] * 10)
    rising = told([50.0 + 5.0 * n for n in range(60)])
    assert dispersion(bursty, DEFAULT_TUNING) > 5.0
    assert dispersion(rising, DEFAULT_TUNING) < 1.5


def test_spare_grows_with_the_root_of_the_load_and_not_for_short_requests():
    def extra(level, cost):
        return spare(
            level,
            mean_cost=cost,
            perf=100.0,
            scatter=1.0,
            queue_seconds=10.0,
            tuning=Tuning(spare_deviations=1.0),
        )

    # requests of 40 s: 16 busy workers need √16 = 4 more, 4 busy ones 2 more
    assert extra(1600.0, 4000.0) == pytest.approx(400.0)
    assert extra(400.0, 4000.0) == pytest.approx(200.0)
    # requests of 0.1 s that may wait 10 s: the wait averages 98 % of that away
    assert extra(1600.0, 10.0) < 60.0


def test_what_came_in_both_of_the_last_hours_comes_again():
    history = hourly(hours=2)
    assert recurring_level(history, START, DEFAULT_TUNING) == 0.0
    assert recurring_level(history, START + 20.0, DEFAULT_TUNING) == pytest.approx(10.0)
    assert recurring_level(history, START + 125.0, DEFAULT_TUNING) == 0.0
    assert next_rise(history, START, DEFAULT_TUNING) == START + 60.0 - DEFAULT_TUNING.recurrence_lead_seconds


def test_what_came_once_is_no_habit():
    history = hourly(hours=1)
    assert recurring_level(history, START + 30.0, DEFAULT_TUNING) == 0.0
    assert next_rise(history, START, DEFAULT_TUNING) is None


def test_a_sleeping_endpoint_wakes_for_its_hourly_burst():
    asleep = see(worker("w1", COLD, since=START - 5000), now=START, load=hourly(hours=2), listed_at=START - 1)
    decided = decide(asleep)
    assert brief(decided) == []
    lead = DEFAULT_TUNING.recurrence_lead_seconds
    assert decided.look_again_at == START + 60.0 - lead
    woken = decide(
        see(
            worker("w1", COLD, since=START - 5000),
            now=START + 60.0 - lead,
            load=hourly(hours=2),
            listed_at=START,
        )
    )
    assert brief(woken) == ["activate w1"]
    assert "at this minute of the last 2 hours" in woken.targets.reason


def test_a_cold_worker_is_woken_where_a_boot_would_come_minutes_later():
    booting = worker("new", BOOTING, since=NOW - 10, perf_estimate=100.0)
    seen = see(worker("hot"), booting, worker("cold", COLD), load=steady(190), config=endpoint())
    assert brief(decide(seen)) == ["activate cold"]
    # 110 of 120 s are over: it is there before a start of 20 s would be
    nearly = booting.but(launched_at=NOW - 110)
    soon = see(
        worker("hot"), nearly, worker("cold", COLD), load=steady(190), config=endpoint(), learned=knows()
    )
    assert "activate cold" not in brief(decide(soon))


def test_a_boot_that_is_overdue_is_not_relied_on():
    booting = worker("slow", BOOTING, since=NOW - 200, perf_estimate=100.0)
    seen = see(booting, load=steady(50), config=endpoint())
    decided = decide(seen)
    # boots take 120 s here: at 240 s another is rented beside it
    assert brief(decided) == []
    assert decided.look_again_at is not None
    assert decided.look_again_at <= NOW + 40.0
    late = decide(see(booting.but(launched_at=NOW - 241), load=steady(50), config=endpoint()))
    assert brief(late) == ["recruit 1x RTX 4090 1"]


def test_a_start_that_does_not_come_back_is_raced():
    starting = worker("stuck", S.STARTING, since=NOW - 39)
    seen = see(starting, worker("other", COLD), load=steady(50), config=endpoint())
    assert brief(decide(seen)) == []
    raced = see(starting.but(since=NOW - 41), worker("other", COLD), load=steady(50), config=endpoint())
    assert brief(decide(raced)) == ["activate other"]
