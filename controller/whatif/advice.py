"""Advice: a second config, planned beside the live one on a live endpoint. Nothing of it is carried out.

Two things are compared. Over time: two shadows live through the endpoint's own load, one under the live config and one
under the advised one, so that what differs is the config and not the imagination. Now: what the advised config would do
with the live fleet, which names real workers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from controller.whatif.fleet import WhatIfFleet, WhatIfTotals, whatif_fleet
from controller.whatif.replay import advance_fleet
from policy.planning.planner import plan
from policy.state.observation import Memory, Observation
from policy.state.plan import Operation, Plan, PollInstances, Recruit, Search
from policy.temperaments import TUNINGS
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointConfig, EndpointPatch

DIFFERENCES_MAX = 12
_REASON_CHARS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that one of the two configs would do now with the live fleet, and the other would not."""

    side: str
    """`advised`: only the advised config; `live`: only the live one."""
    op: str
    subject: str
    """Launch id, or the workergroup that a recruit is for."""
    reason: str

    def __repr__(self) -> str:
        return f"<{self.side} only: {self.op} {self.subject}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A second config under observation, with everything that it is to be reminded of."""

    patch: EndpointPatch = EndpointPatch()
    """What differs from the live config; the rest follows it."""
    tuning: str = "default"
    """One of `policy.temperaments`."""
    since: float
    live: WhatIfFleet
    """The live config in imagination: what the advised one is compared with."""
    advised: WhatIfFleet
    memory: Memory = Memory()
    """The advised config's, for the live fleet."""
    differences: tuple[Difference, ...] = ()
    """At the last look, at most DIFFERENCES_MAX."""
    dollars_before: float = 0.0
    """What the endpoint had cost when advice was asked for."""
    summed_up_at: float = 0.0
    """When the comparison was last told in the decision log."""
    told: str = ""
    """The differences as they were last told there."""
    told_at: float = 0.0

    def __repr__(self) -> str:
        return f"<Advice {said(self)}, {len(self.differences)} differences now>"


def begin(seen: Observation, patch: EndpointPatch, tuning: str, *, dollars: float) -> Advice:
    """Advice as of now: both shadows begin as the live fleet is, reminded of what it is reminded of."""
    shadow = whatif_fleet(seen)
    return Advice(
        patch=patch,
        tuning=tuning,
        since=seen.now,
        live=shadow,
        advised=shadow,
        memory=seen.memory or Memory(),
        dollars_before=dollars,
        summed_up_at=seen.now,
    )


def advised_config(advice: Advice, config: EndpointConfig) -> EndpointConfig:
    """The advised config: the live one of now with the patch.

    Raises:
        pydantic.ValidationError: the live config has changed so that the patch does not fit it any more.
    """
    return config.patched(advice.patch)


def advance(advice: Advice, seen: Observation, live_plan: Plan, tuning: Tuning = DEFAULT_TUNING) -> Advice:
    """The advice after this look at the live endpoint, for which `live_plan` was made."""
    config = advised_config(advice, seen.config)
    other = TUNINGS.get(advice.tuning, tuning)
    made = plan(replace(seen, config=config, memory=advice.memory), other)
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
        advised=advance_fleet(advice.advised, seen, config, other, until),
    )


def is_news(before: Advice, after: Advice) -> bool:
    """Whether it is worth to be written down: shadows moved, or the differences are others."""
    return before.live.clock != after.live.clock or _keys(before) != _keys(after)


def differences_in_words(advice: Advice) -> str:
    """The steps that differ now, without their reasons, whose numbers move: `advised only: drain a1 b2; live only: …`."""
    sides: dict[str, dict[str, Counter[str]]] = {}
    for each in advice.differences:
        sides.setdefault(each.side, {}).setdefault(each.op, Counter())[each.subject] += 1
    words = [
        f"{side} only: " + ", ".join(f"{op} {_counted(subjects)}" for op, subjects in steps.items())
        for side, steps in sides.items()
    ]
    return "; ".join(words)[:200] or "no step differs now"


def _counted(subjects: Counter[str]) -> str:
    return " ".join(
        f"{subject} ({times} times)" if times > 1 else subject for subject, times in subjects.items()
    )


def said(advice: Advice) -> str:
    """What was asked, e.g. `target_util = 0.8, tuning thrifty`."""
    given = advice.patch.model_dump(mode="json", exclude_none=True)
    words = [f"{name} = {value}" for name, value in given.items()]
    if advice.tuning != "default":
        words.append(f"tuning {advice.tuning}")
    return ", ".join(words)


def summary(advice: Advice) -> str:
    """Both lives in one sentence."""
    hours = advice.advised.tally.seconds / 3600.0
    if hours <= 0:
        return f"advised ({said(advice)}): nothing to compare yet, shadows live {DEFAULT_TUNING.whatif_lag_seconds:.0f} s behind"
    span = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
    return (
        f"over {span}, in imagination: the live config {_sum(advice.live.tally)};"
        f" advised ({said(advice)}) {_sum(advice.advised.tally)}"
    )


def _sum(tally: WhatIfTotals) -> str:
    return (
        f"{tally.hot:.1f} hot, ${tally.dollars_per_hour:.2f}/h, waits {tally.wait_seconds:.1f} s,"
        f" {tally.late_share:.1%} late"
    )


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
    """Operations by what they do to whom; recruits are told apart by their number, for ids and offers are chance.

    A search is one: it is what recruits begin with, and as the advised one is never made, all that there is to see of them.
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
