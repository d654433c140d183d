"""Retry bounds and the pauses between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from stoker_wire.parsing.numbers import read_number


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds on retries. The request's timeout bounds everything in addition."""

    refusals_max: int = 20
    """Refusals before any work was done: the worker is unreachable, draining, or its queue is full."""
    failures_max: int = 4
    """Failures in the middle of a request: connection lost, 408, 5xx."""
    engine_outage_seconds_max: float = 120.0
    """Tolerated outage of the engine; covers a restart on a slow machine with an image pull."""
    pause_seconds_first: float = 0.1
    pause_seconds_max: float = 5.0
    on_outage: Callable[[float, str], None] | None = field(default=None, repr=False, compare=False)
    """Called before a management call is repeated: the length of the engine's outage in seconds, and its reason."""

    def pause(self, tries: int) -> float:
        """Seconds before attempt `tries` + 1: exponential backoff with jitter, at least half of the bound.

        The jitter spreads clients that lost the same engine at the same moment. The floor keeps a pause from being
        near zero right after a refusal.
        """
        ceiling = min(self.pause_seconds_max, self.pause_seconds_first * 2.0 ** min(tries, 16))
        return ceiling * random.uniform(0.5, 1.0)


NO_RETRY = RetryPolicy(refusals_max=0, failures_max=0, engine_outage_seconds_max=0.0)
"""One attempt: for callers with retries of their own."""


def retry_after(header: str | None, *, seconds_max: float) -> float | None:
    """Seconds of a `Retry-After` header, at most `seconds_max`; None if the header is not a number of seconds."""
    seconds = read_number(header or "")
    return None if seconds is None or seconds < 0 else min(seconds, seconds_max)
