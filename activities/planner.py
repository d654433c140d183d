"""The planner as an activity, so that each plan with its reasons stands in the history."""

from dataclasses import dataclass

from temporalio import activity

from policy.observation import Observation
from policy.plan import Plan
from policy.planner import plan as decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan that has passed its checks, and what had to be taken out of it for that."""

    plan: Plan
    refused: tuple[str, ...] = ()
    """Why operations were taken out, one sentence each: a fault of the planner, to be reported."""


@activity.defn
async def plan(observation: Observation) -> Decided:
    """Decides what to do next. Pure: planning again on the same observation answers the same."""
    return Decided(plan=decide(observation))
