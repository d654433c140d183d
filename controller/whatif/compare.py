"""Compares two configs on a live endpoint: the operations that differ now, and two simulated fleets over time."""

from collections.abc import Iterator
from dataclasses import replace

from controller.whatif.advice import Advice, Difference
from controller.whatif.replay import advance_fleet
from policy.planning.planner import plan
from policy.state.observation import Observation
from policy.state.plan import Operation, Plan, PollInstances, Recruit, Search
from policy.tuning import DEFAULT_TUNING, Tuning

DIFFERENCES_MAX = 12
_REASON_CHARS = 240


def advance(advice: Advice, seen: Observation, live_plan: Plan, tuning: Tuning = DEFAULT_TUNING) -> Advice:
    """The advice after this observation, from which `live_plan` was made.

    Raises:
        pydantic.ValidationError: the live config has changed, and the patch is no longer valid for it.
    """
    config = seen.config.patched(advice.patch)
    made = plan(replace(seen, config=config, memory=advice.memory), tuning)
    advice = replace(
        advice, memory=made.memory, differences=tuple(_differences(live_plan, made))[:DIFFERENCES_MAX]
    )
    known = seen.load.known_until
    until = min(seen.now, known if known is not None else seen.now) - DEFAULT_TUNING.whatif_lag_seconds
    if until - advice.live.clock < DEFAULT_TUNING.whatif_advance_seconds:
        return advice
    return replace(
        advice,
        live=advance_fleet(advice.live, seen, seen.config, tuning, until),
        advised=advance_fleet(advice.advised, seen, config, tuning, until),
    )


def is_news(before: Advice, after: Advice) -> bool:
    """Whether the advice has to be stored: the simulation advanced, or the differences changed."""
    return before.live.clock != after.live.clock or _keys(before) != _keys(after)


def _keys(advice: Advice) -> tuple[tuple[str, str, str], ...]:
    return tuple((each.side, each.op, each.subject) for each in advice.differences)


def _differences(live: Plan, advised: Plan) -> Iterator[Difference]:
    ours, theirs = _steps(live), _steps(advised)
    for key in theirs:
        if key not in ours:
            yield _difference("advised", key, theirs[key])
    for key in ours:
        if key not in theirs:
            yield _difference("live", key, ours[key])


def _difference(side: str, key: tuple[str, str, int], operation: Operation) -> Difference:
    return Difference(side=side, op=key[0], subject=key[1], reason=operation.reason[:_REASON_CHARS])


def _steps(made: Plan) -> dict[tuple[str, str, int], Operation]:
    """Operations by kind and subject. Recruits are numbered, because their launch ids and offers are random.

    A search counts as an operation: recruits begin with one, and the advised config's search is never carried out.
    """
    steps: dict[tuple[str, str, int], Operation] = {}
    recruits: dict[str, int] = {}
    for operation in made.operations:
        if isinstance(operation, PollInstances):
            continue
        if isinstance(operation, Search):
            steps[(operation.op, f"workergroup {operation.workergroup_id}", 0)] = operation
        elif isinstance(operation, Recruit):
            subject = f"workergroup {operation.workergroup_id}"
            recruits[subject] = recruits.get(subject, 0) + 1
            steps[(operation.op, subject, recruits[subject])] = operation
        else:
            steps[(operation.op, operation.launch_id, 0)] = operation
    return steps
