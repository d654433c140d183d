"""Which changes of an endpoint's load are worth a report: each report is a billed action and often a plan."""

import math
from dataclasses import dataclass

from policy.tuning import DEFAULT_TUNING


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests that arrived within a time, and their summed cost."""

    seconds: float = 0.0
    load: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class QueueState:
    """Number of queued requests, and the expected queue time of a new one."""

    requests: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, requests: int, seconds: float, target_queue_time: float) -> "QueueState":
        """The state as far as it matters: short waits and infinite ones (no worker) count as zero."""
        significant = target_queue_time * DEFAULT_TUNING.queue_ignored_share < seconds < math.inf
        return cls(requests, seconds if significant else 0.0)


def arrivals_changed(reported: Arrivals, seen: Arrivals) -> bool:
    """Whether arrivals differ from the reported ones by more than a tenth and by more than chance.

    The first arrivals after silence always do. Chance: `n` requests are n ± sqrt(n x spread) of their mean cost.
    """
    expected = reported.load / reported.seconds * seen.seconds if reported.seconds > 0 else 0.0
    change = abs(seen.load - expected)
    if change <= DEFAULT_TUNING.rate_change * max(seen.load, expected):
        return False
    requests = reported.requests + seen.requests
    if expected <= 0 or requests == 0:
        return True
    cost = (reported.load + seen.load) / requests
    if cost <= 0:  # the mean of tiny costs underflows to zero
        return True
    deviation = cost * math.sqrt(DEFAULT_TUNING.cost_spread * (seen.requests + expected / cost))
    return (
        change
        > (
            DEFAULT_TUNING.rate_rise_deviations
            if seen.load > expected
            else DEFAULT_TUNING.rate_fall_deviations
        )
        * deviation
    )


def queue_changed(reported: QueueState, seen: QueueState) -> bool:
    """Whether a queue appeared or emptied, or differs from the reported one by more than a quarter."""
    if bool(seen.requests) != bool(reported.requests):
        return True
    if abs(seen.requests - reported.requests) > DEFAULT_TUNING.queue_change * reported.requests:
        return True
    change = abs(seen.seconds - reported.seconds)
    return (
        change >= DEFAULT_TUNING.queue_change_seconds
        and change > DEFAULT_TUNING.queue_change * reported.seconds
    )


def activity_report_due_at(
    reported: float | None, seen: float | None, inactivity_timeout: float | None
) -> float:
    """When a last request that is later than the `reported` one must be reported; infinite: never.

    The workflow counts `inactivity_timeout` from the last reported request. Without this report an endpoint with steady
    traffic would look idle, because steady arrivals are not significant.
    """
    if (
        not inactivity_timeout
        or inactivity_timeout < 0
        or reported is None
        or seen is None
        or seen <= reported
    ):
        return math.inf
    return reported + inactivity_timeout - min(DEFAULT_TUNING.activity_margin_seconds, inactivity_timeout / 2)
