"""Instant reaction: a scaler that sees every arrival at once and whose machines never fail.

It starts workers when requests find none, as many as clear the queue within the allowed time. It keeps each worker
hot for a while after its last request, and keeps some idle workers as spare. A start takes the median time, disks are
free, metrics are instant. The frontier of its parameters, chosen in hindsight, shows the price of attainment without
knowledge of bursts. It is a strong comparator, not a bound.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

ATTAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One setting and its result. Seconds are those of one running worker."""

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
    score_from: float = 0.0,
) -> Reached:
    """First come, first served; a start takes `start_seconds` and costs `billed_seconds`. Counts from `score_from` on.

    Wanted at any time: workers that serve or are needed by queued requests, plus `spare`, plus `spare_share` of them.
    """
    idle: list[float] = []
    """Idle workers with their idle times, last in, first out, so that the others can stop."""
    events: list[float] = []
    """Heap of the times at which a worker becomes free or ready."""
    line: list[float] = []
    work: list[float] = []
    head = starting = serving = starts = within = 0
    idled = billed = queued = 0.0
    count, arrived = len(times), 0
    mean = sum(services) / count if count else 0.0
    soon_free = max(0.0, 1.0 - mean / slack)
    """Share of the serving workers that become free early enough to help: all for short requests, none for long ones.
    """

    last = 0.0
    """Time of the last event."""

    def release(now: float, needed: int) -> None:
        nonlocal idled
        gone = 0
        while gone < len(idle) - needed:
            # it stopped after its keep time, when it was not needed any more
            went = max(idle[gone] + keep_seconds, last)
            if went >= now:
                break
            idled += max(0.0, went - max(idle[gone], score_from))
            gone += 1
        del idle[:gone]

    readies: list[float] = []
    while arrived < count or events or readies:
        next_arrival = times[arrived] if arrived < count else float("inf")
        next_free = events[0] if events else float("inf")
        next_ready = readies[0] if readies else float("inf")
        now = min(next_arrival, next_free, next_ready)
        release(now, spare + ceil(spare_share * serving))
        last = now
        if now in (next_free, next_ready):
            if now == next_free:
                heapq.heappop(events)
                serving -= 1
            else:
                heapq.heappop(readies)
                starting -= 1
            if head < len(line):
                within += line[head] >= score_from and now - line[head] <= slack + 1e-9
                queued -= work[head]
                heapq.heappush(events, now + work[head])
                serving += 1
                head += 1
            else:
                idle.append(now)
        else:
            service = services[arrived]
            if idle:
                idled += max(0.0, now - max(idle.pop(), score_from))
                within += now >= score_from
                serving += 1
                heapq.heappush(events, now + service)
            else:
                line.append(now)
                work.append(service)
                queued += service
            arrived += 1
        helping = round(serving * soon_free)
        unserved = min(len(line) - head, max(0, ceil(queued / slack - 1e-9) - helping))
        missing = unserved + spare + ceil(spare_share * serving) - len(idle) - starting
        for _ in range(missing if arrived < count else min(missing, unserved - starting)):
            starting += 1
            starts += now >= score_from
            billed += billed_seconds if now >= score_from else 0.0
            heapq.heappush(readies, now + start_seconds)
    end = max(last, times[-1] if times else 0.0)
    release(end, spare)
    idled += sum(max(0.0, end - max(since, score_from)) for since in idle)
    scored = [service for at, service in zip(times, services, strict=True) if at >= score_from]
    return Reached(
        keep_seconds=keep_seconds,
        spare=spare,
        spare_share=spare_share,
        within=within / len(scored) if scored else 1.0,
        seconds=sum(scored) + idled + billed,
        starts=starts,
    )


KEEPS = (0.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
SPARES = ((0, 0.0), (1, 0.0), (1, 0.25), (1, 0.5), (1, 1.0), (2, 1.0), (2, 2.0), (4, 2.0))


def settings() -> Iterator[tuple[float, int, float]]:
    """The parameters to choose from: (keep, spare, spare share)."""
    for keep in KEEPS:
        for spare, share in SPARES:
            yield keep, spare, share


def frontier(
    times: Sequence[float],
    services: Sequence[float],
    *,
    start_seconds: float,
    billed_seconds: float,
    score_from: float = 0.0,
) -> list[Reached]:
    """The settings that no other setting dominates in cost and attainment, cheapest first."""
    made = [
        react(
            times, services, start_seconds=start_seconds, billed_seconds=billed_seconds,
            keep_seconds=keep, spare=spare, spare_share=share, score_from=score_from,
        )
        for keep, spare, share in settings()
    ]  # fmt: skip
    best: list[Reached] = []
    for each in sorted(made, key=lambda one: (one.seconds, -one.within)):
        if not best or each.within > best[-1].within:
            best.append(each)
    return best
