"""Limits hold under any delay, reordering and loss of engine reports."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.load.history import LoadHistory, fold
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import committed_dollars_per_hour, endpoint
from tests.policy.world import TICK, World

LOST = None
some = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
fates = st.lists(st.sampled_from([0, 0, 0, 1, 3, 12, LOST]), min_size=20, max_size=60)
levels = st.lists(st.sampled_from([0.0, 50.0, 400.0, 3000.0]), min_size=1, max_size=6)


class BadLine(World):
    """A world whose engine reports are delayed or lost. Every plan is validated, and planning twice changes nothing."""

    def __init__(self, config, fates):
        super().__init__(config)
        self.fates = fates
        self.on_the_way = []

    def _pass(self, rate):
        before = self.load
        super()._pass(rate)
        fate = self.fates[(self.ticks - 1) % len(self.fates)]
        if fate is not LOST:
            batch = {
                "engine_id": "e", "sequence": self.ticks, "at": self.now, "window_s": TICK, "load": rate * TICK,
                "queued_load": self.waiting, "queued_requests": round(self.waiting / 10),
                "last_request_at": self.last_request_at,
            }  # fmt: skip
            self.on_the_way.append((self.ticks + fate, batch))
        self.load = before
        for due, batch in [each for each in self.on_the_way if each[0] <= self.ticks]:
            self.load = fold(self.load, **batch)
            self.on_the_way.remove((due, batch))


@some
@given(fates, levels, st.integers(1, 6), st.sampled_from([None, 0.7, 1.3]))
def test_max_workers_and_budget_hold_for_any_delay_of_metrics(fates, levels, max_workers, budget):
    world = BadLine(
        endpoint(max_workers=max_workers, dollars_per_hour_max=budget, min_workers=2, cold_mult=2), fates
    )
    for number in range(50):
        world.run(TICK, lambda _, number=number: levels[number // 10 % len(levels)])
        assert len(world.workers) <= max_workers
        if budget is not None:
            assert committed_dollars_per_hour(world.workers) <= budget + 1e-9


@some
@given(st.sampled_from([50.0, 250.0, 400.0]), st.integers(0, 6))
def test_a_lost_connection_never_reduces_hot_capacity(level, late):
    world = BadLine(endpoint(max_workers=8), [late])
    world.run(900, lambda _: level)
    hot = world.hot
    assert hot >= 1
    world.fates = [LOST]
    world.on_the_way.clear()
    world.run(DEFAULT_TUNING.metrics_stale_seconds + 1800, lambda _: level)
    assert world.hot >= hot


def test_a_repeated_or_reordered_report_counts_once():
    first = {"engine_id": "e", "sequence": 1, "at": 1005.0, "window_s": 5.0, "load": 50.0, "queued_load": 9.0}
    second = first | {"sequence": 2, "at": 1010.0}
    once = fold(fold(LoadHistory(), **first), **second)
    assert fold(fold(once, **second), **first) == once
    late = fold(fold(LoadHistory(), **second), **first)
    assert sum(load for _, load in late.seconds) == 50.0  # an older report is ignored
    assert replace(late, seconds=()).known_until == once.known_until


def test_without_losses_all_load_arrives():
    plain, bad = World(endpoint(min_workers=1)), BadLine(endpoint(min_workers=1), [0])
    for world in (plain, bad):
        world.run(900, lambda tick: 100.0 + tick % 7)
    assert [each.state for each in plain.workers] == [each.state for each in bad.workers]
    assert plain.log == bad.log
    assert S.READY in {each.state for each in bad.workers}
