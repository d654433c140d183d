"""Advice: what a second config would cost, on a live endpoint. None of its operations are carried out.

Two fleets are simulated with the endpoint's own load, one under the live config and one under the advised config, so
that they differ only by the config.
"""

from dataclasses import dataclass

from controller.whatif.fleet import WhatIfFleet, WhatIfTotals, whatif_fleet
from policy.state.observation import Observation
from policy.tuning import DEFAULT_TUNING
from stoker_wire.endpoint import EndpointPatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A second config under comparison, with its state."""

    patch: EndpointPatch = EndpointPatch()
    """The difference from the live config. All other fields follow the live config."""
    since: float
    live: WhatIfFleet
    """The fleet simulated under the live config: the baseline."""
    advised: WhatIfFleet
    dollars_before: float = 0.0
    """Cost of the endpoint when advice was requested, dollars."""
    summed_up_at: float = 0.0
    """When the decision log last got a comparison."""

    def __repr__(self) -> str:
        return f"<Advice {said(self)}>"


def begin(seen: Observation, patch: EndpointPatch, *, dollars: float) -> Advice:
    """Advice as of now: both simulated fleets begin as a copy of the live fleet and its memory."""
    fleet = whatif_fleet(seen)
    return Advice(
        patch=patch, since=seen.now, live=fleet, advised=fleet, dollars_before=dollars, summed_up_at=seen.now
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
