"""The knobs are monotone on seeded traffic: paying more never means waiting more, within what a seed changes."""

from itertools import pairwise

import pytest

from benchmarks.scaling import generators
from benchmarks.scaling.scalers import FIXED
from simulation.controller_host import SimulatedController
from simulation.run import run
from simulation.settings import DEFAULT_WORLD, calm

SEEDS = (1, 2, 3)
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


@pytest.mark.parametrize(
    ("knob", "values"),
    [
        ("error_budget", (0.1, 0.01, 0.001)),
        ("target_queue_time", (32.0, 16.0, 8.0, 4.0, 2.0)),
        ("target_util", (1.0, 0.8, 0.6)),
    ],
)
def test_a_stricter_value_costs_more_and_is_late_less_often(knob, values):
    found = [lived(**{knob: value}) for value in values]
    for (more_late, cheaper), (less_late, dearer) in pairwise(found):
        assert less_late <= more_late + NOISE_LATE
        assert dearer * NOISE_COST >= cheaper
    (most_late, cheapest), (least_late, dearest) = found[0], found[-1]
    assert cheapest < dearest
    assert least_late < most_late
