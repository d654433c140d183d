"""What is worth telling of an endpoint's load: each word to its workflow is a billed action, and often a plan."""

import math
from dataclasses import dataclass

from policy.tuning import DEFAULT_TUNING

RATE_CHANGE = 0.1
"""Relative change of the arrival rate that matters."""
RISE_DEVIATIONS = 0.5
FALL_DEVIATIONS = 1.0
"""It has to be more than chance besides: five requests in one slice and six in the next are the same traffic. A rise told
late costs waits, a fall told late some seconds of a worker."""
QUEUE_CHANGE = 0.25
"""Relative change of what waits that matters."""
QUEUE_CHANGE_SECONDS = 1.0
QUEUE_SHARE = 0.5
"""Of target_queue_time: an expected wait below it changes with every request, and nothing follows from it."""


RENEW_SECONDS = 2.0
"""So long before inactivity_timeout has passed since the last request that was told, a later one is told: a signal's way and
some to spare. Half of a timeout that is shorter than twice that."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What arrived in so many seconds."""

    seconds: float = 0.0
    load: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits: requests in the line, and how long a new one would."""

    requests: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, requests: int, seconds: float, target_queue_time: float) -> "Waiting":
        """As far as it is worth telling; nobody to work on it (infinite) says the line itself."""
        tells = target_queue_time * QUEUE_SHARE < seconds < math.inf
        return cls(requests, seconds if tells else 0.0)


def arrivals_moved(told: Arrivals, seen: Arrivals) -> bool:
    """Whether arrivals differ from what was told by more than a tenth and by more than chance explains.

    The first after silence always do. `n` requests are n ± sqrt(n x spread) of their mean cost, on either side.
    """
    expected = told.load / told.seconds * seen.seconds if told.seconds > 0 else 0.0
    change = abs(seen.load - expected)
    if change <= RATE_CHANGE * max(seen.load, expected):
        return False
    requests = told.requests + seen.requests
    if expected <= 0 or requests == 0:
        return True
    cost = (told.load + seen.load) / requests
    if cost <= 0:  # of costs so small that their mean is none
        return True
    chance = cost * math.sqrt(DEFAULT_TUNING.cost_spread * (seen.requests + expected / cost))
    return change > (RISE_DEVIATIONS if seen.load > expected else FALL_DEVIATIONS) * chance


def waiting_moved(told: Waiting, seen: Waiting) -> bool:
    """Whether a line appeared or emptied, or what waits differs by a quarter from what was told."""
    if bool(seen.requests) != bool(told.requests):
        return True
    if abs(seen.requests - told.requests) > QUEUE_CHANGE * told.requests:
        return True
    change = abs(seen.seconds - told.seconds)
    return change >= QUEUE_CHANGE_SECONDS and change > QUEUE_CHANGE * told.seconds


def renewed_at(told: float | None, seen: float | None, inactivity_timeout: float | None) -> float:
    """When the last request has to be told for its own sake; infinite: never.

    The workflow counts `inactivity_timeout` from the last request that it was `told` of, and would take the endpoint for idle
    although a later one was `seen`: arrivals as before are no news otherwise.
    """
    if not inactivity_timeout or inactivity_timeout < 0 or told is None or seen is None or seen <= told:
        return math.inf
    return told + inactivity_timeout - min(RENEW_SECONDS, inactivity_timeout / 2)
