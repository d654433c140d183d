"""The rate oracle: a scaler that knows the true load of every minute in advance, but not single arrivals.

No online policy has this knowledge, so better forecasts cannot exceed its results.
"""

import math
from collections.abc import Sequence

from benchmarks.scaling.peers.replicas import Signals

MINUTE_SECONDS = 60.0


class RateOracle:
    """Capacity for the true load up to `lead_seconds` from now, plus spare, plus one worker per waiting request."""

    name = "rate oracle"
    period = 5.0

    def __init__(
        self,
        times: Sequence[float],
        services: Sequence[float],
        *,
        spare_deviations: float = 1.0,
        lead_seconds: float = 60.0,
        reacts: bool = True,
    ) -> None:
        busy = [0.0] * (int(times[-1] // MINUTE_SECONDS) + 1 if times else 1)
        for at, service in zip(times, services, strict=True):
            busy[int(at // MINUTE_SECONDS)] += service / MINUTE_SECONDS
        self._wanted = [math.ceil(mean + spare_deviations * math.sqrt(mean) - 1e-9) for mean in busy]
        self._lead_seconds = lead_seconds
        self._reacts = reacts

    def want(self, signals: Signals, current: int) -> int:
        """The highest load of the minutes that a start made now has to serve."""
        first = int(signals.now // MINUTE_SECONDS)
        last = int((signals.now + self._lead_seconds) // MINUTE_SECONDS)
        planned = max(self._wanted[first : last + 1], default=0)
        return max(planned, math.ceil(signals.ongoing / signals.slots)) if self._reacts else planned
