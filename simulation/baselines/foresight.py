"""A scaler that is told the future's level and not its chance: the true load of every minute, before it comes.

No online policy knows that much. What even this one cannot reach, nobody reaches by forecasting better.
"""

import math
from collections.abc import Sequence

from simulation.baselines.replicas import Signals

MINUTE_SECONDS = 60.0


class RateOracle:
    """Enough for the true load of the minutes up to `lead_seconds` from now, plus spare; and one more per request that waits."""

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
        """The most of the minutes that a start made now has to serve."""
        first = int(signals.now // MINUTE_SECONDS)
        last = int((signals.now + self._lead_seconds) // MINUTE_SECONDS)
        planned = max(self._wanted[first : last + 1], default=0)
        return max(planned, math.ceil(signals.ongoing / signals.slots)) if self._reacts else planned
