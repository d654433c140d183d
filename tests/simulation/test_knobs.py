"""The knobs are monotone on seeded traffic: paying more never means waiting more, within what a seed changes."""

from itertools import pairwise

import pytest

from benchmarks.scaling import generators
from benchmarks.scaling.scalers import FIXED
from simulation.controller_host import SimulatedController
from simulation.run import run
from simulation.settings import DEFAULT_WORLD, calm

SEEDS = (1, 2)
NOISE_LATE, NOISE_COST = 0.004, 1.06


def lived(**knobs) -> tuple[float, float]:
    """(share that waited longer than 10 s, dollars) of two bursty hours, means over the seeds."""
    late = dollars = 0.0
    config = FIXED.model_copy(update=knobs)
    for seed in SEEDS:
        found = run(
            generators.bursty(requests=1000, hours=2.0, seed=seed).scaled(mean_load=300.0),
            SimulatedController(config),
            calm(DEFAULT_WORLD),
            seed=seed,
            config=config,
            score_from=1800.0,
        )
        late += (1.0 - found.within_10) / len(SEEDS)
        dollars += found.dollars / len(SEEDS)
    return late, dollars


def test_a_smaller_error_budget_costs_more_and_is_late_less_often():
    found = [lived(error_budget=budget) for budget in (0.1, 0.01, 0.001)]
    for (more_late, cheaper), (less_late, dearer) in pairwise(found):
        assert less_late <= more_late + NOISE_LATE
        assert dearer * NOISE_COST >= cheaper
    assert found[0][1] < found[-1][1]


@pytest.mark.parametrize(
    ("knob", "values"), [("target_queue_time", (16.0, 4.0)), ("target_util", (1.0, 0.6))]
)
def test_a_stricter_target_costs_more_and_is_late_less_often(knob, values):
    (more_late, cheaper), (less_late, dearer) = (lived(**{knob: value}) for value in values)
    assert cheaper < dearer
    assert less_late < more_late
