"""How long to pause before another try, and how often to try."""

from __future__ import annotations

import random
from dataclasses import dataclass

from stoker_wire.parsing.numbers import read_number


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds on repetition. The caller's timeout bounds everything all the same."""

    refusals_max: int = 20
    """Workers that may refuse a request before any work was done: unreachable, draining, queue full."""
    failures_max: int = 4
    """Workers that may fail in the middle of a request: connection lost, 408, 5xx."""
    engine_outage_seconds_max: float = 120.0
    """How long the engine may be away: long enough for a restart on a slow machine, image pull included."""
    pause_seconds_first: float = 0.1
    pause_seconds_max: float = 5.0

    def pause(self, tries: int) -> float:
        """Seconds before try number `tries` + 1: exponential with full jitter, never under half.

        Half, because a pause near zero against something that just refused is no pause; jitter, because a thousand
        clients that lost the same engine must not come back in the same millisecond.
        """
        ceiling = min(self.pause_seconds_max, self.pause_seconds_first * 2.0 ** min(tries, 16))
        return ceiling * random.uniform(0.5, 1.0)


NO_RETRY = RetryPolicy(refusals_max=0, failures_max=0, engine_outage_seconds_max=0.0)
"""One try: for callers that bring their own repetition."""


def retry_after(header: str | None, *, seconds_max: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, cut to `seconds_max`; None if it says no number of seconds."""
    seconds = read_number(header or "")
    return None if seconds is None or seconds < 0 else min(seconds, seconds_max)
