"""Many seeded runs of one endpoint; `python -m tests.seeded SEED` repeats one and prints its events."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.seeded.world import live

SEEDS = 20
SEEDS_LONG = 1000
SEEDS_PER_TEST = 10
"""Seeds per test, so that xdist can distribute them and a report shows progress."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silences the logs of thousands of intended faults."""
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**configured)


def lived(seeds: range) -> None:
    """Runs each seed alone; a failure names its seed and the command to repeat it."""
    for seed in seeds:
        try:
            live(seed)
        except Exception as fault:
            raise AssertionError(
                f"seed {seed}: {fault}\nreplay it alone: python -m tests.seeded {seed}"
            ) from fault


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nothing_that_must_never_happen_happens(first: int) -> None:
    lived(range(first, first + SEEDS_PER_TEST))


@pytest.mark.long
@pytest.mark.parametrize("first", range(SEEDS, SEEDS_LONG, SEEDS_PER_TEST))
def test_nothing_that_must_never_happen_happens_in_many_more_lives(first: int) -> None:
    lived(range(first, first + SEEDS_PER_TEST))


def test_the_same_seed_is_the_same_life() -> None:
    stories = []
    for _ in range(2):
        world = live(2)
        runs = [run for execution in world.server.executions.values() for run in execution.runs]
        steps = [
            step.activation.SerializeToString(deterministic=True) for run in runs for step in run.history
        ]
        stories.append((world.asked_of_market, steps))
    assert stories[0] == stories[1]
