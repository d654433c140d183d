"""Advice: a second config, planned beside the live one on a live endpoint. None of its operations are carried out.

It compares twice. Over time: two fleets are simulated with the endpoint's own load, one under the live config and one
under the advised config, so that they differ only by the config. Now: the operations that the advised config would
order for the live fleet, with the names of real workers.
"""

from collections import Counter
from dataclasses import dataclass

from controller.whatif.fleet import WhatIfFleet, WhatIfTotals, whatif_fleet
from policy.state.observation import Memory, Observation
from policy.tuning import DEFAULT_TUNING
from stoker_wire.endpoint import EndpointPatch


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
    since: float
    live: WhatIfFleet
    """The fleet simulated under the live config: the baseline."""
    advised: WhatIfFleet
    memory: Memory = Memory()
    """The planner memory of the advised config for the live fleet."""
    differences: tuple[Difference, ...] = ()
    """At the last look, bounded."""
    dollars_before: float = 0.0
    """Cost of the endpoint when advice was requested, dollars."""
    summed_up_at: float = 0.0
    """When the decision log last got a comparison."""
    logged: str = ""
    """The differences as last logged there."""
    logged_at: float = 0.0

    def __repr__(self) -> str:
        return f"<Advice {said(self)}, {len(self.differences)} differences now>"


def begin(seen: Observation, patch: EndpointPatch, *, dollars: float) -> Advice:
    """Advice as of now: both simulated fleets begin as a copy of the live fleet and its memory."""
    shadow = whatif_fleet(seen)
    return Advice(
        patch=patch,
        since=seen.now,
        live=shadow,
        advised=shadow,
        memory=seen.memory or Memory(),
        dollars_before=dollars,
        summed_up_at=seen.now,
    )


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
    """The requested change, e.g. `target_util = 0.8, error_budget = 0.02`."""
    given = advice.patch.model_dump(mode="json", exclude_none=True)
    return ", ".join(f"{name} = {value}" for name, value in given.items())


def summary(advice: Advice) -> str:
    """Both simulations in one sentence."""
    hours = advice.advised.tally.seconds / 3600.0
    if hours <= 0:
        lag = DEFAULT_TUNING.whatif_lag_seconds
        return f"advised ({said(advice)}): nothing to compare yet; the replay runs {lag:.0f} s behind"
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
