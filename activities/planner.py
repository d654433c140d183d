"""The planner as an activity, so that each plan with its reasons stands in the history."""

from dataclasses import dataclass

import structlog
from temporalio import activity

from policy.advice import Advice, advance, is_news
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
    advice: Advice | None = None
    """The advice that was brought, if it has news."""


@activity.defn
async def plan(observation: Observation, advice: Advice | None = None) -> Decided:
    """Decides what to do next, and what an advised config would do. Pure: planning again on the same answers the same."""
    accepted, faults = sound(observation, decide(observation))
    for fault in faults:
        _log.error("plan_refused", fault=fault)
    return Decided(plan=accepted, refused=faults, advice=_advised(advice, observation, accepted))


def _advised(advice: Advice | None, observation: Observation, live: Plan) -> Advice | None:
    if advice is None:
        return None
    try:
        after = advance(advice, observation, live)
    except Exception as fault:  # noqa: BLE001 - advice must never cost the endpoint its plan
        _log.error("advice_failed", error=f"{type(fault).__name__}: {fault}"[:300])
        return None
    return after if is_news(advice, after) else None
