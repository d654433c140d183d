"""Steps of the plan at their limits."""

import math
from dataclasses import replace

from policy.planning.inputs import gather
from policy.state.observation import Memory
from policy.state.worker import Goal, KindRecord, MachineStats
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, brief, decide, endpoint, group, held_before, see, steady, worker


def test_enough_hot_capacity_is_no_gap():
    assert decide(see(worker("w1"), load=steady(99.5))).memory.above_since is None
    assert decide(see(worker("w1"), load=steady(101))).memory.above_since == NOW


def test_a_worker_below_the_min_load_of_its_workergroup_is_not_enough():
    groups = (group(min_load=150),)
    seen = see(worker("w1"), worker("w2", S.INACTIVE), load=steady(50), workergroups=groups)
    assert brief(decide(seen)) == ["activate w2"]
    enough = see(worker("w1", perf=150), worker("w2", S.INACTIVE), load=steady(50), workergroups=groups)
    assert brief(decide(enough)) == []


def test_min_load_of_one_workergroup_is_not_met_by_another():
    groups = (group(1), group(2, min_load=150))
    workers = [worker(f"w{number}") for number in range(3)]
    workers += [
        worker(f"v{number}", state, workergroup_id=2) for number, state in enumerate((S.READY, S.INACTIVE))
    ]
    assert brief(decide(see(*workers, load=steady(290), workergroups=groups))) == ["activate v1"]


def test_a_worker_that_never_ran_and_a_broken_one_are_released_before_a_ready_one():
    for prices in ((0.3, 0.5), (0.5, 0.3)):
        created, broken = worker("c", S.CREATED, price=prices[0]), worker("e", S.ERROR, price=prices[1])
        seen = see(created, broken, worker("w"), load=steady(90), config=endpoint(max_workers=2))
        assert sorted(brief(decide(seen))) == ["destroy c", "destroy e"]


def test_a_worker_in_its_retry_pause_is_looked_at_when_the_pause_ends():
    seen = see(worker("w1", retry_at=NOW + 3), load=steady(95))
    assert decide(seen).replan_at == NOW + 3


def test_arrivals_are_averaged_over_the_time_that_a_request_may_take():
    # requests of 2,000 load take 20 s at 100 load/s; the endpoint lets them wait for 10 s
    seen = see(
        worker("w1"), load=replace(steady(50), mean_cost=2000.0), config=endpoint(target_queue_time=10.0)
    )
    assert gather(seen, DEFAULT_TUNING).forecast.reason == "50 load/s in the last 30 s"


def test_a_rolling_update_counts_the_workers_that_are_being_updated():
    ready = [worker(f"w{number}", revision=1) for number in range(8)]
    updating = worker("u", S.UPDATE_REBOOTING, revision=1, since=NOW - 5, operation="update")
    seen = see(*ready, updating, load=steady(50), workergroups=(group(revision=2),), memory=Memory())
    drains = [
        each for each in decide(seen).operations if each.op == "drain" and each.drain.goal is Goal.UPDATE
    ]
    assert len(drains) == math.ceil(9 * DEFAULT_TUNING.update_share_max) - 1
    first = drains[0]
    assert (first.numbers["ready_after"], first.numbers["hot_wanted"]) == (700.0, 50.0)


def cold(count: int, **floors: float):
    """Cold workers of 100 load/s in a workergroup with these floors, without demand for hours."""
    workers = [worker(f"c{number}", S.INACTIVE, price=0.3 + number / 100) for number in range(count)]
    return held_before(see(*workers, workergroups=(group(**floors),)))


def test_cold_workers_are_released_down_to_the_floors_of_their_workergroup():
    for floors, kept in (
        ({}, 0),
        ({"cold_workers": 1}, 1),
        ({"cold_workers": 2}, 2),
        ({"min_cold_load": 150}, 2),
        ({"min_cold_load": 200}, 2),
        ({"min_cold_load": 201}, 3),
        ({"cold_workers": 3, "min_cold_load": 100}, 3),
    ):
        released = [each for each in decide(cold(4, **floors)).operations if each.op == "destroy"]
        assert 4 - len(released) == kept, floors


def test_the_dearest_cold_worker_is_released_first():
    assert brief(decide(cold(3, cold_workers=1))) == ["destroy c2", "destroy c1"]


BOOTED = KindRecord(workergroup_id=1, kind="1x RTX 4090", perf=100.0, samples=3, boots=3, boot_seconds=120.0)


def test_without_cold_workers_a_seasonal_peak_is_prepared_a_slow_boot_ahead():
    def lead(learned: KindRecord = BOOTED, **config: float) -> float:
        seen = see(learned=MachineStats(kinds=(learned,)), config=endpoint(**config))
        return gather(seen, DEFAULT_TUNING).seasonal_lead_seconds

    short, boot = DEFAULT_TUNING.seasonal_lead_seconds, DEFAULT_TUNING.overdue_factor * 120.0
    assert lead() == min(boot, DEFAULT_TUNING.seasonal_lead_seconds_max) > short
    assert lead(min_workers=1) == lead(min_cold_load=1) == lead(cold_mult=2) == short
    assert lead(replace(BOOTED, starts=1, start_seconds=20.0)) == short
