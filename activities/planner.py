"""The planner as an activity, so that each plan with its reasons stands in the history."""

from dataclasses import dataclass

import structlog
from temporalio import activity

from policy.checks import sound
from policy.observation import Observation
from policy.plan import Plan
from policy.planner import plan as decide

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan that has passed its checks, and what had to be taken out of it for that."""

    plan: Plan
    refused: tuple[str, ...] = ()
    """Why operations were taken out, one sentence each: a fault of the planner, to be reported."""


@activity.defn
async def plan(observation: Observation) -> Decided:
    """Decides what to do next. Pure: planning again on the same observation answers the same."""
    accepted, faults = sound(observation, decide(observation))
    for fault in faults:
        _log.error("plan_refused", fault=fault)
    return Decided(plan=accepted, refused=faults)
