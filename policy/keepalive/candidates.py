"""The ways of holding hot capacity that are tried in the books, and which of them is used.

The books see less than there is: arrivals in buckets, requests as a fluid, machines that always come.
"""

import math
from dataclasses import dataclass

from policy.tuning import Tuning

HOLDS = (45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 3600.0)
"""Seconds for which a level of capacity is kept after it was last needed."""
SPARES = (0.25, 0.5)
SPARE_HOLDS = (45.0, 90.0, 180.0, 600.0)
PARTS = ((45.0, 0.5, 600.0), (90.0, 0.3, 600.0), (90.0, 0.5, 1200.0), (45.0, 0.7, 3600.0))
"""(the hold of all that was needed, the share of it that is kept for longer, for how long): of bursts that come again after any
pause, what is kept through the pause spares most of the waiting."""
LAST_HOLDS = (45.0, 90.0, 300.0)
LAST_SECONDS = HOLDS[-1]
"""For which the last hot worker is kept, where it is kept for longer than the others: seldom requests need one, and it is the
second and the third, which two requests at a time once asked for, that make a long hold dear."""
_HOLD_FOR_NOTHING = 300.0
"""Of holds that cost the same none longer than this is chosen."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of holding."""

    seconds: float
    """For which a level is kept after it was last needed."""
    habit: bool = False
    """Whether what came at this minute of each of the last hours is met in advance."""
    spare: float = 0.0
    """What is kept beyond the level, as a share of it."""
    last: bool = False
    """Whether the last worker is kept for `LAST_SECONDS`."""
    part: float = 0.0
    """The share of the level that is kept for `part_seconds`."""
    part_seconds: float = 0.0
    """More than `seconds`, where there is a part."""

    @property
    def plain(self) -> bool:
        """Nothing but a hold."""
        return not self.habit and not self.spare and not self.last and not self.part


WAYS = (
    *(Candidate(hold) for hold in HOLDS),
    *(Candidate(hold, habit=True) for hold in HOLDS),
    *(Candidate(hold, spare=spare) for spare in SPARES for hold in SPARE_HOLDS),
    *(Candidate(hold, last=True) for hold in LAST_HOLDS),
    *(Candidate(hold, part=part, part_seconds=longer) for hold, part, longer in PARTS),
)
"""All that are tried; books refer to them by their place."""

Trial = tuple[float, float, float, float, int]
"""(work waiting or running, seconds over the limit, work that was late, running seconds paid, workers): in seconds of
one worker, but for the last."""

FRESH: Trial = (0.0, 0.0, 0.0, 0.0, 0)


def cheapest(
    trials: tuple[Trial, ...],
    work: float,
    chosen: int,
    tuning: Tuning,
    *,
    young: bool = False,
) -> int:
    """The place of the way that costs least, late work beyond `late_share_max` counted; `chosen` while it is about as cheap.

    To a `young` endpoint late work is dearer, for what half an hour did not show may still come; and it keeps the smallest spare at most,
    for it cannot tell growth from chance: from nothing every endpoint has grown.
    """
    price = tuning.late_price * (tuning.late_price_young if young else 1.0)
    free = tuning.late_share_max * work

    def cost(trial: Trial) -> float:
        return trial[3] + price * max(0.0, trial[2] - free)

    costs = [
        math.inf if young and way.spare > SPARES[0] else cost(trial)
        for way, trial in zip(WAYS, trials, strict=True)
    ]
    enough = min(costs) * (1.0 + tuning.experience_margin)
    if 0 <= chosen < len(costs) and costs[chosen] <= enough:
        return chosen
    # of those that cost the same a longer hold moves less, but it learns later that the traffic has changed; habit and spare
    # only where they pay
    cheap = [number for number, each in enumerate(costs) if each <= enough]
    plain = [number for number in cheap if WAYS[number].plain] or cheap
    short = [number for number in plain if WAYS[number].seconds <= _HOLD_FOR_NOTHING]
    return max(short, key=_calm) if short else min(plain, key=_calm)


def _calm(number: int) -> tuple[float, int]:
    return (WAYS[number].seconds, number)
