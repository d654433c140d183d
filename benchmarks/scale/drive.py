"""The workload: steady traffic on some endpoints, and urgent events on every kind of endpoint."""

import asyncio
import math
import random
import time

from benchmarks.scale.fake_workers import PERF
from benchmarks.scale.seed import Part, Seeded
from benchmarks.scale.stage import Stage

REQUESTS_PER_SECOND = 2.0
"""Mean requests per second of a busy endpoint."""
_LAST_WORD_SECONDS = 15.0
"""Time until the last arrivals are reported, seconds: a 5 s interval with fewer arrivals may be random, the empty one
after it is not."""
COST = 60.0
SWING, SWING_SECONDS = 0.5, 120.0
"""Traffic varies with this amplitude, because a constant rate causes no signals."""
BURST_COST = 600.0
BURST_QUEUE_SECONDS = 18.0
"""Seconds of work of a burst for the hot workers: above the target, below the longest queue."""
EVENTS_PER_SECOND = 0.8
TICK_SECONDS = 0.05


class Drive:
    """Traffic and events, drawn from `chance`."""

    def __init__(self, stage: Stage, chance: random.Random, *, rate: float = REQUESTS_PER_SECOND) -> None:
        self._stage = stage
        self._chance = chance
        self._rate = rate
        self._of = {part: [e for e in stage.endpoints if e.part is part] for part in Part}

    async def traffic(self) -> None:
        """Poisson arrivals on every busy endpoint, each with its own phase, until cancelled."""
        busy, chance = self._of[Part.BUSY], self._chance
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            passed, last = now - last, now
            for endpoint in busy:
                phase = endpoint.id * 0.618034
                swing = 1 + SWING * math.sin(2 * math.pi * (now / SWING_SECONDS + phase))
                if chance.random() < self._rate * swing * passed:
                    self._stage.clients.send(endpoint.name, endpoint.key, chance.uniform(0.5, 1.5) * COST)

    async def events(self, seconds: float) -> None:
        """Urgent events on endpoints that had none yet, spread over the first five sixths of the window."""
        calm = list(self._of[Part.CALM])
        of = {"wake": list(self._of[Part.ASLEEP]), "grow": calm[0::2], "error": calm[1::2]}
        waiting = []
        while any(of.values()):  # in turn, so that even a few events include every kind
            waiting += [(kind, endpoints.pop(0)) for kind, endpoints in of.items() if endpoints]
        chosen = waiting[: max(3, round(seconds * EVENTS_PER_SECOND))]
        began = time.monotonic()
        for number, (kind, endpoint) in enumerate(chosen):
            due = began + seconds * 5 / 6 * number / len(chosen)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._happen(kind, endpoint)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

    async def drain(self, seconds_max: float) -> None:
        """Waits until every request is finished and reported, and every event has its decision."""
        stage, deadline = self._stage, time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            asked, fake_workers = stage.clients.asked, stage.fake_workers
            if (
                asked.given == asked.sent
                and fake_workers.acknowledged + fake_workers.lost_by_stop >= asked.given
                and not stage.events.open
            ):
                await asyncio.sleep(_LAST_WORD_SECONDS)
                return
            await asyncio.sleep(0.2)

    def _happen(self, kind: str, endpoint: Seeded) -> None:
        self._stage.events.happened(kind, endpoint.name)
        send = self._stage.clients.send
        match kind:
            case "wake":
                send(endpoint.name, endpoint.key, COST)
            case "grow":
                load = PERF * len(endpoint.running) * BURST_QUEUE_SECONDS
                for _ in range(round(load / BURST_COST)):
                    send(endpoint.name, endpoint.key, BURST_COST)
            case "error":
                one = self._chance.choice(endpoint.running)
                self._stage.fake_workers.workers[one.id].fail("CUDA error: device-side assert triggered")
