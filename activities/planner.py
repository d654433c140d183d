"""The planner as an activity, so that each plan with its reasons stands in the history."""

from dataclasses import dataclass

import structlog
from temporalio import activity

from controller.whatif.advice import Advice, advance, is_news
from policy.planning.deletion import plan_deletion
from policy.planning.plan_validation import drop_faulty
from policy.planning.planner import plan as decide
from policy.state.observation import Observation
from policy.state.plan import Plan

_log = structlog.get_logger(__name__)
_FAULT_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan that has passed its checks, and what had to be taken out of it for that."""

    plan: Plan
    refused: tuple[str, ...] = ()
    """Why operations were taken out, one sentence each: a fault of the planner, to be reported."""
    advice: Advice | None = None
    """The advice that was brought, if it has news."""
    fault: str = ""
    """What the planner failed of, where a plan could be made all the same."""


@activity.defn
async def plan(observation: Observation, advice: Advice | None = None) -> Decided:
    """Decides what to do next, and what an advised config would do. Pure: planning again on the same answers the same."""
    made, failure = _decide(observation)
    accepted, faults = drop_faulty(observation, made)
    for fault in faults:
        _log.error("plan_refused", fault=fault)
    advised = _advised(advice, observation, accepted)
    return Decided(plan=accepted, refused=faults, advice=advised, fault=failure)


def _decide(observation: Observation) -> tuple[Plan, str]:
    """The plan, and what the planner failed of: that is no reason to go on paying for what is to be deleted."""
    try:
        return decide(observation), ""
    except Exception as fault:
        if not observation.deleting:
            raise
        said = f"{type(fault).__name__}: {fault}"[:_FAULT_CHARS]
        _log.error("planner_failed", error=said)
        return plan_deletion(observation), said


def _advised(advice: Advice | None, observation: Observation, live: Plan) -> Advice | None:
    if advice is None:
        return None
    try:
        after = advance(advice, observation, live)
    except Exception as fault:  # noqa: BLE001 - advice must never cost the endpoint its plan
        _log.error("advice_failed", error=f"{type(fault).__name__}: {fault}"[:_FAULT_CHARS])
        return None
    return after if is_news(advice, after) else None
