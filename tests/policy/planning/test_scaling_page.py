"""`docs/explanation/scaling.md` names the functions that decide, in the order in which they run."""

import re
import sys
from pathlib import Path

import pytest

from policy.planning.planner import plan
from policy.state.observation import Observation
from tests.policy.builders import (
    BOOTING,
    COLD,
    endpoint,
    group,
    held_before,
    see,
    steady,
    worker,
)

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "scaling.md").read_text()
FUNCTIONS = re.findall(r"^\d+\. \*\*(\w+)\*\*", PAGE, re.MULTILINE)

QUEUE_OVER_TARGET = see(
    worker("hot"),
    worker("boots", BOOTING),
    worker("cold", COLD),
    config=endpoint(min_workers=4),
    load=steady(600, waiting=4000, requests=12),
    workergroups=(group(min_load=10),),
)
CALM = held_before(see(worker("hot"), worker("spare"), load=steady(50)), predicted=50)


def calls(observation: Observation) -> list[str]:
    """The functions of the page that a plan calls, in the order of their first calls."""
    seen: dict[str, None] = {}

    def trace(frame, event, _):
        if event == "call" and frame.f_code.co_name in FUNCTIONS and "/policy/" in frame.f_code.co_filename:
            seen[frame.f_code.co_name] = None

    sys.setprofile(trace)
    try:
        plan(observation)
    finally:
        sys.setprofile(None)
    return list(seen)


@pytest.mark.parametrize("observation", [QUEUE_OVER_TARGET, CALM], ids=["queue over target", "calm"])
def test_the_functions_run_in_the_order_of_the_page(observation):
    called = calls(observation)
    assert called == [name for name in FUNCTIONS if name in called]


def test_every_function_of_the_page_runs():
    assert set(calls(QUEUE_OVER_TARGET)) | set(calls(CALM)) == set(FUNCTIONS)
    assert len(FUNCTIONS) <= 15


def test_the_examples_of_the_page_are_decisions_of_the_planner():
    idle = see(worker("f3a91c"), config=endpoint(inactivity_timeout=30), load=steady(0, last=see().now - 30))
    (drain,) = plan(held_before(idle)).operations
    assert (drain.step, f"drain f3a91c: {drain.reason}") == ("remove_hot_capacity", example("drain"))
    cold = worker("4f1c22", COLD, perf=210, price=0.31)
    (activate,) = plan(see(worker("hot", perf=380), cold, load=steady(420))).operations
    assert (activate.step, f"activate 4f1c22: {activate.reason}") == ("add_hot_capacity", example("activate"))


def example(op: str) -> str:
    (line,) = re.findall(rf"^{op} .*$", PAGE, re.MULTILINE)
    return line


def test_every_operation_names_a_step_of_the_planner():
    decided = plan(QUEUE_OVER_TARGET)
    steps = [each.step for each in decided.operations]
    assert "add_hot_capacity" in steps
    assert all(steps)


def kept_before(predicted: float, **given) -> Observation:
    """One hot worker at 50 load/s, after a peak of `predicted` load/s."""
    return held_before(see(worker("hot"), **{"load": steady(50)} | given), predicted=predicted)


@pytest.mark.parametrize(
    ("observation", "cause"),
    [
        (kept_before(50), "the predicted load"),
        (kept_before(90), "recent peaks"),
        (kept_before(50, config=endpoint(min_load=80)), "min_load"),
        (kept_before(0, config=endpoint(inactivity_timeout=-1), load=steady(0)), "inactivity_timeout"),
        # 900 load is cleared in 10 s by 90 load/s
        (kept_before(50, load=steady(50, waiting=900, requests=9)), "the queue"),
    ],
    ids=["load", "peaks", "min_load", "timeout", "queue"],
)
def test_a_plan_says_which_sentence_keeps_capacity_hot(observation, cause):
    targets = plan(observation).targets
    assert targets.kept_for == cause
    assert targets.hot_kept > 0
    assert FUNCTIONS[targets.kept_rule - 1] == targets.kept_by


@pytest.mark.parametrize("state", ["stopped", "suspended"])
def test_an_endpoint_that_is_not_scaled_keeps_nothing_for_a_load(state):
    targets = plan(see(worker("hot"), config=endpoint(endpoint_state=state), load=steady(50))).targets
    assert (targets.hot_kept, targets.kept_for, targets.kept_rule) == (0.0, "", 0)
