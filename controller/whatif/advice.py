"""Advice: a second config, planned beside the live one on a live endpoint. None of its operations are carried out.

It compares twice. Over time: two fleets are simulated with the endpoint's own load, one under the live config and one
under the advised config, so that they differ only by the config. Now: the operations that the advised config would
order for the live fleet, with the names of real workers.
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
    """An operation that only one of the two configs would order now for the live fleet."""

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
    """A second config under comparison, with its state."""

    patch: EndpointPatch = EndpointPatch()
    """The difference from the live config. All other fields follow the live config."""
    tuning: str = "default"
    """One of `policy.temperaments`."""
    since: float
    live: WhatIfFleet
    """The fleet simulated under the live config: the baseline."""
    advised: WhatIfFleet
    memory: Memory = Memory()
    """The planner memory of the advised config for the live fleet."""
    differences: tuple[Difference, ...] = ()
    """At the last look, at most DIFFERENCES_MAX."""
    dollars_before: float = 0.0
    """Cost of the endpoint when advice was requested, dollars."""
    summed_up_at: float = 0.0
    """When the decision log last got a comparison."""
    told: str = ""
    """The differences as last logged there."""
    told_at: float = 0.0

    def __repr__(self) -> str:
        return f"<Advice {said(self)}, {len(self.differences)} differences now>"


def begin(seen: Observation, patch: EndpointPatch, tuning: str, *, dollars: float) -> Advice:
    """Advice as of now: both simulated fleets begin as a copy of the live fleet and its memory."""
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
    """The advised config: the present live config with the patch.

    Raises:
        pydantic.ValidationError: the live config has changed, and the patch is no longer valid for it.
    """
    return config.patched(advice.patch)


def advance(advice: Advice, seen: Observation, live_plan: Plan, tuning: Tuning = DEFAULT_TUNING) -> Advice:
    """The advice after this observation, from which `live_plan` was made."""
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
    """Whether the advice has to be stored: the simulation advanced, or the differences changed."""
    return before.live.clock != after.live.clock or _keys(before) != _keys(after)


def differences_in_words(advice: Advice) -> str:
    """The operations that differ now, without their reasons: `advised only: drain a1 b2; live only: …`."""
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
    """The requested change, e.g. `target_util = 0.8, tuning thrifty`."""
    given = advice.patch.model_dump(mode="json", exclude_none=True)
    words = [f"{name} = {value}" for name, value in given.items()]
    if advice.tuning != "default":
        words.append(f"tuning {advice.tuning}")
    return ", ".join(words)


def summary(advice: Advice) -> str:
    """Both simulations in one sentence."""
    hours = advice.advised.tally.seconds / 3600.0
    if hours <= 0:
        lag = DEFAULT_TUNING.whatif_lag_seconds
        return f"advised ({said(advice)}): nothing to compare yet, shadows live {lag:.0f} s behind"
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
