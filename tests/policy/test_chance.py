"""What a few requests prove, and machines that take longer than they should."""

from policy.chance import proven_level
from policy.load import LoadHistory, fold
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import BOOTING, COLD, NOW, brief, decide, endpoint, knows, see, steady, worker


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
    assert proven_level(steady(500), DEFAULT_TUNING) == (0.0, 0.0)


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
