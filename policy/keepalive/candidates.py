"""The candidate rules for keeping idle capacity hot, and the choice of the cheapest one.

Each candidate is evaluated on the recorded load (`policy.keepalive.evaluation`). The evaluation simplifies: arrivals
are binned, requests are a fluid, and machines always start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from policy.load.peaks import Peaks, held_level
from policy.tuning import Tuning

HOLD_SECONDS = (45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 3600.0)
"""Candidate times for which a level of capacity stays hot after it was last needed."""
SPARE_SHARES = (0.25, 0.5)
_SPARE_HOLD_SECONDS = (45.0, 90.0, 180.0, 600.0)
_TAILS = ((45.0, 0.5, 600.0), (90.0, 0.3, 600.0), (90.0, 0.5, 1200.0), (45.0, 0.7, 3600.0))
"""(seconds, tail share, tail seconds) of the candidates with a tail. For bursts at irregular intervals, a part of the
capacity that survives the pause prevents most of the waiting."""


@dataclass(frozen=True, slots=True)
class Retention:
    """One rule for keeping idle capacity hot."""

    seconds: float
    """How long a level of capacity stays hot after it was last needed."""
    seasonal: bool = False
    """Start workers ahead of the load that occurred at this minute of each of the last hours."""
    spare_share: float = 0.0
    """Spare capacity, as a share of the level."""
    tail_share: float = 0.0
    """The share of the level that stays hot for `tail_seconds`."""
    tail_seconds: float = 0.0
    """More than `seconds` if there is a tail."""

    @property
    def is_plain(self) -> bool:
        """Whether the rule is only a hold time."""
        return not (self.seasonal or self.spare_share or self.tail_share)

    @property
    def reason(self) -> str:
        """The spare capacity for the reason of a decision; empty without spare capacity."""
        return f"{self.spare_share:.0%} spare by keep-alive evaluation" if self.spare_share else ""

    @property
    def longest_seconds(self) -> float:
        """The longest time for which any capacity stays hot."""
        return max(self.seconds, self.tail_seconds)

    def level(self, peaks: Peaks, now: float) -> float:
        """The capacity that stays hot after these peaks of demand, load/s."""
        whole = held_level(peaks, now, self.seconds) * (1.0 + self.spare_share)
        return max(whole, self.tail_share * held_level(peaks, now, self.tail_seconds))


CANDIDATES = (
    *(Retention(hold) for hold in HOLD_SECONDS),
    *(Retention(hold, seasonal=True) for hold in HOLD_SECONDS),
    *(Retention(hold, spare_share=spare) for spare in SPARE_SHARES for hold in _SPARE_HOLD_SECONDS),
    *(Retention(hold, tail_share=share, tail_seconds=longer) for hold, share, longer in _TAILS),
)
"""All evaluated rules. `CandidateTotals` and `KeepaliveState.chosen` refer to them by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateTotals:
    """The running totals of all candidates: one column per quantity, in the order of `CANDIDATES`.

    Columns, because the state travels through every continue-as-new: field names would be repeated for each
    candidate.
    """

    pending_work: tuple[float, ...] = ()
    """Work that waits or runs, in seconds of one worker."""
    over_limit_seconds: tuple[float, ...] = ()
    """How long there has been more pending work than the queue-time limit allows."""
    late_work: tuple[float, ...] = ()
    """Work that waited too long, in seconds of one worker, discounted over time."""
    paid_seconds: tuple[float, ...] = ()
    """Cost: running seconds and starts, in seconds of one worker, discounted over time."""
    workers: tuple[int, ...] = ()
    """Hot workers."""

    @classmethod
    def zero(cls) -> "CandidateTotals":
        """The totals before the first evaluation."""
        zeros = (0.0,) * len(CANDIDATES)
        return cls(
            pending_work=zeros,
            over_limit_seconds=zeros,
            late_work=zeros,
            paid_seconds=zeros,
            workers=(0,) * len(CANDIDATES),
        )

    def __len__(self) -> int:
        return len(self.workers)


@dataclass(frozen=True, slots=True)
class LatePrice:
    """What late work costs, for hot and cold capacity: the endpoint's error budget as a price."""

    seconds: float
    """Cost of a worker-second of late work, in seconds of a running worker."""
    free_share: float
    """Share of all work that may be late free of charge."""

    @classmethod
    def of(cls, error_budget: float, tuning: Tuning) -> "LatePrice":
        """The price of an error budget: half the budget is twice the price."""
        return cls(tuning.late_budget_price / error_budget, tuning.late_free_share * error_budget)


def cheapest(
    late_work: Sequence[float],
    paid_seconds: Sequence[float],
    work: float,
    chosen: int,
    tuning: Tuning,
    *,
    price: LatePrice,
    young: bool = False,
) -> int:
    """The index of the candidate with the lowest cost; `chosen` while its cost is within the switch margin.

    The cost is the paid seconds plus `price` for late work beyond its free share of all `work`. For a `young`
    endpoint late work costs more, because rare events have not been seen yet. It also uses the smallest spare share
    at most: growth from zero looks like a trend.
    """
    per_second = price.seconds * (tuning.late_work_price_young_factor if young else 1.0)
    free = price.free_share * work
    costs = [
        math.inf
        if young and candidate.spare_share > SPARE_SHARES[0]
        else paid + per_second * max(0.0, late - free)
        for candidate, late, paid in zip(CANDIDATES, late_work, paid_seconds, strict=True)
    ]
    enough = min(costs) * (1.0 + tuning.keepalive_switch_margin)
    if 0 <= chosen < len(costs) and costs[chosen] <= enough:
        return chosen
    # Among equally cheap candidates, a longer hold moves fewer workers, but adapts later to a change of traffic.
    # Candidates with extra rules are chosen only where they are cheaper.
    cheap = [index for index, cost in enumerate(costs) if cost <= enough]
    plain = [index for index in cheap if CANDIDATES[index].is_plain] or cheap
    short = [index for index in plain if CANDIDATES[index].seconds <= tuning.equal_cost_hold_seconds_max]
    return max(short, key=_by_hold) if short else min(plain, key=_by_hold)


def _by_hold(index: int) -> tuple[float, int]:
    return (CANDIDATES[index].seconds, index)
