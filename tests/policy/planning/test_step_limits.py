"""Steps of the plan at their limits."""

import math
from dataclasses import replace

from policy.state.observation import Memory
from policy.state.worker import Goal
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, brief, decide, endpoint, group, held_before, see, steady, worker

COOLDOWN = DEFAULT_TUNING.scale_down_cooldown_seconds


def test_enough_hot_capacity_is_no_gap():
    assert decide(see(worker("w1"), load=steady(99.5))).memory.above_since is None
    assert decide(see(worker("w1"), load=steady(101))).memory.above_since == NOW


def test_a_worker_below_the_min_load_of_its_workergroup_is_not_enough():
    groups = (group(min_load=150),)
    seen = see(worker("w1"), worker("w2", S.INACTIVE), load=steady(50), workergroups=groups)
    assert brief(decide(seen)) == ["activate w2"]
    enough = see(worker("w1", perf=150), worker("w2", S.INACTIVE), load=steady(50), workergroups=groups)
    assert brief(decide(enough)) == []


def test_no_worker_is_drained_shortly_after_the_endpoint_grew():
    calm = held_before(see(worker("w1"), worker("w2"), load=steady(50), config=endpoint(min_load=50)))
    assert brief(decide(calm)) == ["drain w1 to stop"]
    for ago, drained in ((COOLDOWN - 1, False), (COOLDOWN, True), (COOLDOWN + 60, True)):
        grown = replace(calm, memory=replace(calm.memory, grew_at=NOW - ago))
        plan = decide(grown)
        assert bool(brief(plan)) is drained
        if not drained:
            assert plan.replan_at is not None
            assert plan.replan_at <= NOW + 1, "it looks again when the cooldown ends"


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
