"""Costs and boot times of an endpoint's workers, by the memos that this engine has read since its start."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.request_stats import Histogram
from engine.routing.listing import Listing
from stoker_wire.states import GPU_BILLED, WorkerState


def gpu_dollars_per_hour(listings: Iterable[Listing]) -> dict[str, float]:
    """$/h of the workers whose GPU is billed, by stage: hot, booting."""
    dollars = {"hot": 0.0, "booting": 0.0}
    for listing in listings:
        if listing.state in GPU_BILLED:
            dollars["hot" if listing.state is WorkerState.READY else "booting"] += listing.price
    return dollars


@dataclass(slots=True)
class FleetStats:
    """Every engine counts the whole fleet, so engines are compared by their maximum, not added."""

    boots: dict[str, Histogram] = field(default_factory=dict)
    """Time of a worker in each state on its way to ready, by that state."""
    _dollars: dict[str, float] = field(default_factory=dict)
    _per_hour: dict[str, float] = field(default_factory=dict)
    _counted_until: float = 0.0

    def gpu_dollars(self, now: float) -> dict[str, float]:
        """Dollars of GPUs until now (Unix seconds), by stage. Never less than before, even if the clock is set back."""
        hours = max(0.0, now - self._counted_until) / 3600
        for stage, rate in self._per_hour.items():
            self._dollars[stage] = self._dollars.get(stage, 0.0) + rate * hours
        self._counted_until = max(now, self._counted_until)
        return dict(self._dollars)

    def change_price(self, dollars_per_hour: dict[str, float], now: float) -> None:
        """The fleet costs this much from now on."""
        self.gpu_dollars(now)
        self._per_hour = dollars_per_hour

    def change_state(self, before: Listing, after: Listing) -> None:
        """A worker is listed in another state than before."""
        if before.state is not after.state and before.state.stage == "booting" and before.since > 0:
            histogram = self.boots.setdefault(before.state.value, Histogram())
            histogram.observe(max(0.0, after.since - before.since))
