"""The planner as an activity, so that the history contains each plan with its reasons."""

import structlog
from temporalio import activity

from controller.effects import Decision
from controller.whatif.advice import Advice
from controller.whatif.replay import advance_advice
from policy.planning.deletion import plan_deletion
from policy.planning.plan_validation import drop_faulty
from policy.planning.planner import plan as decide
from policy.state.observation import Observation
from policy.state.plan import Plan

_log = structlog.get_logger(__name__)
_FAULT_CHARS = 300


@activity.defn
async def plan(observation: Observation, advice: Advice | None = None) -> Decision:
    """Plan the next operations, and compare an advised config. Deterministic for equal inputs."""
    made, failure = _decide(observation)
    accepted, faults = drop_faulty(observation, made)
    for fault in faults:
        _log.error("plan_refused", fault=fault)
    advised = _advised(advice, observation)
    return Decision(plan=accepted, refused=faults, advice=advised, fault=failure)


def _decide(observation: Observation) -> tuple[Plan, str]:
    """The plan and the planner's error. A planner error must not stop the deletion of an endpoint."""
    try:
        return decide(observation), ""
    except Exception as fault:
        if not observation.deleting:
            raise
        message = f"{type(fault).__name__}: {fault}"[:_FAULT_CHARS]
        _log.error("planner_failed", error=message)
        return plan_deletion(observation), message


def _advised(advice: Advice | None, observation: Observation) -> Advice | None:
    if advice is None:
        return None
    try:
        after = advance_advice(advice, observation)
    except Exception as fault:  # noqa: BLE001 - advice must never cost the endpoint its plan
        _log.error("advice_failed", error=f"{type(fault).__name__}: {fault}"[:_FAULT_CHARS])
        return None
    return after if after is not advice else None
