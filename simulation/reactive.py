"""What reacting can reach at best: a scaler that sees every arrival at once, never errs and never fails.

It starts a worker in the moment in which a request finds none, keeps each one hot for a while after its last request, and
holds some idle ones as spare. The start takes as long as starts do in the median, disks are free, metrics are instant.
No online policy without a forecast does better with the same parameters; the frontier of its parameters, chosen in
hindsight, says what attainment costs at least when bursts are not foreseen.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

ATTAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One setting and what it led to. Seconds are those of one running worker."""

    keep_seconds: float
    spare: int
    spare_share: float
    within: float
    """Share of the requests that waited at most 10 s."""
    seconds: float
    """Starts, service and idling."""
    starts: int


def react(
    times: Sequence[float],
    services: Sequence[float],
    *,
    start_seconds: float,
    billed_seconds: float,
    keep_seconds: float,
    spare: int = 0,
    spare_share: float = 0.0,
    slack: float = ATTAIN_SECONDS,
) -> Reached:
    """First come first served; a start takes `start_seconds` and costs `billed_seconds`.

    Wanted at any time: those that serve or are waited for, plus `spare`, plus `spare_share` of them.
    """
    idle: list[float] = []
    """Since when each idle worker is: the one used last is used next, so that the others can go."""
    events: list[float] = []
    """Heap of the moments at which a worker becomes free or ready."""
    line: list[float] = []
    work: list[float] = []
    head = starting = serving = starts = within = 0
    idled = billed = 0.0
    count, arrived = len(times), 0

    def expire(now: float, needed: int) -> None:
        nonlocal idled
        gone = 0
        while gone < len(idle) - needed and now - idle[gone] > keep_seconds:
            idled += keep_seconds
            gone += 1
        del idle[:gone]

    readies: list[float] = []
    while arrived < count or events or readies:
        next_arrival = times[arrived] if arrived < count else float("inf")
        next_free = events[0] if events else float("inf")
        next_ready = readies[0] if readies else float("inf")
        now = min(next_arrival, next_free, next_ready)
        needed = spare + ceil(spare_share * serving)
        if now in (next_free, next_ready):
            if now == next_free:
                heapq.heappop(events)
                serving -= 1
            else:
                heapq.heappop(readies)
                starting -= 1
            if head < len(line):
                within += now - line[head] <= slack + 1e-9
                heapq.heappush(events, now + work[head])
                serving += 1
                head += 1
            else:
                idle.append(now)
        else:
            expire(now, needed)
            service = services[arrived]
            if idle:
                idled += now - idle.pop()
                within += 1
                serving += 1
                heapq.heappush(events, now + service)
            else:
                line.append(now)
                work.append(service)
            arrived += 1
        missing = len(line) - head + spare + ceil(spare_share * serving) - len(idle) - starting
        for _ in range(missing if arrived < count else min(missing, len(line) - head - starting)):
            starting += 1
            starts += 1
            billed += billed_seconds
            heapq.heappush(readies, now + start_seconds)
    end = times[-1] if times else 0.0
    idled += sum(min(keep_seconds, max(0.0, end - since)) for since in idle)
    return Reached(
        keep_seconds=keep_seconds,
        spare=spare,
        spare_share=spare_share,
        within=within / count if count else 1.0,
        seconds=sum(services) + idled + billed,
        starts=starts,
    )


KEEPS = (0.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
SPARES = ((0, 0.0), (1, 0.0), (1, 0.25), (1, 0.5), (1, 1.0), (2, 1.0), (2, 2.0), (4, 2.0))


def settings() -> Iterator[tuple[float, int, float]]:
    """What hindsight may choose from: (keep, spare, spare share)."""
    for keep in KEEPS:
        for spare, share in SPARES:
            yield keep, spare, share


def frontier(
    times: Sequence[float], services: Sequence[float], *, start_seconds: float, billed_seconds: float
) -> list[Reached]:
    """The settings that nothing beats in both cost and attainment, cheapest first."""
    made = [
        react(
            times, services, start_seconds=start_seconds, billed_seconds=billed_seconds,
            keep_seconds=keep, spare=spare, spare_share=share,
        )
        for keep, spare, share in settings()
    ]  # fmt: skip
    best: list[Reached] = []
    for each in sorted(made, key=lambda one: (one.seconds, -one.within)):
        if not best or each.within > best[-1].within:
            best.append(each)
    return best
