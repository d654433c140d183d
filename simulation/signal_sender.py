"""The signal sender of the simulated engine; the engine's metrics batcher and escalation decide when it sends.

Batches have a delay, and some are late or lost.
"""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.signalling.escalation import Escalation
from policy.signalling.metrics_batcher import Gauges, MetricsBatcher, Window
from policy.signalling.significance import QueueState
from simulation.machine import Machine, Stage

if TYPE_CHECKING:
    from simulation.dispatcher import Member, SimulatedDispatcher
    from simulation.world import World

TICK_SECONDS = 0.25
"""Least interval between two checks without an event, seconds."""
TELL_SECONDS = 30.0
"""A worker without changes is reported with the first batch after this time, seconds."""


@dataclass(slots=True, kw_only=True)
class EngineNotice:
    """One worker as the engine knows it."""

    machine: Machine
    perf: float
    load: float
    in_flight: int
    reported_at: float
    drain_seen: bool
    gone: bool = False
    """It does not answer its clients."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """The metrics since the last batch, as in `MetricsBatch`."""

    sequence: int
    sent_at: float
    windows: tuple[Window, ...]
    """Windows of arrivals, oldest first."""
    queued_load: float
    queued_requests: int
    oldest_wait_s: float
    last_request_at: float | None
    urgent: str
    words: tuple[EngineNotice, ...]


class SimulatedSignalSender:
    """Counts arrivals since the last batch, and sends the next one when it is due."""

    def __init__(
        self,
        world: "World",
        front: "SimulatedDispatcher",
        *,
        seed: int,
        target_queue_time: float,
        inactivity_timeout: float | None,
    ) -> None:
        self._world = world
        self._front = front
        self._chance = random.Random(f"{seed} metrics")
        self._target_queue_time = target_queue_time
        self._inactivity_timeout = inactivity_timeout
        self._batcher = MetricsBatcher(world.now)
        self._escalation = Escalation()
        self.changed: dict[int, Member] = {}
        """Workers with changes to report."""
        self.departed: list[Machine] = []
        """Workers that stopped without a drain."""
        self._sequence = 0
        self._look_at = math.inf

    def begin(self) -> None:
        """Starts the metrics batcher."""
        self._look_later()

    def arrived(self, cost: float) -> None:
        """Counts a new request."""
        self._batcher.record_arrival(cost, self._world.now)

    def urge(self, cause: str) -> None:
        """Sends the next batch at once."""
        self._batcher.request_urgent(cause, self._world.now)
        self._look_later()

    def heed_backlog(self) -> None:
        """Escalates the first request that no worker can serve, and each doubling of the queue."""
        if self._front.candidates:
            self._escalation.reset_backlog()
            self.heed_queue()
            return
        cause = self._escalation.on_backlog(self._front.line_load + len(self._front.line))
        if cause is not None:
            self.urge(cause)

    def heed_queue(self) -> None:
        """Escalates an expected queue time over its target, and each growth by half."""
        cause = self._escalation.on_queue_time(self._front.queue_seconds(), self._target_queue_time)
        if cause is not None:
            self.urge(cause)

    def _look_later(self) -> None:
        """Schedules the next check of the metrics batcher."""
        at = self._batcher.urgent_due_at()
        if at is None:
            at = max(self._batcher.not_due_before(self._inactivity_timeout), self._world.now + TICK_SECONDS)
        if at < self._look_at:
            self._look_at = at
            self._world.at(at, self._look, at)

    def _look(self, at: float) -> None:
        world = self._world
        if at != self._look_at or (world.ended and not world.inside):
            return
        self._look_at = math.inf
        level = self._level()
        urgent = self._batcher.due(level, world.now)
        if urgent is not None:
            self._tell(level, urgent)
        self._look_later()

    def _level(self) -> Gauges:
        front, machines = self._front, self._world.machines
        return Gauges(
            queue=QueueState.of(len(front.line), front.queue_seconds(), self._target_queue_time),
            workers=len(machines),
            workers_cold=sum(machine.stage is Stage.STOPPED for machine in machines.values()),
            holding=any(member.costs for member in front.members.values()),
            inactivity_timeout=self._inactivity_timeout,
        )

    def _tell(self, level: Gauges, urgent: str) -> None:
        now = self._world.now
        for number, member in self._front.members.items():
            if number in self.changed or now - member.told_at >= TELL_SECONDS or member.draining:
                member.told_at = now
                self.changed[number] = member
        self._sequence += 1
        batch = Batch(
            sequence=self._sequence,
            sent_at=now,
            windows=tuple(self._batcher.take_windows(level, now)),
            queued_load=self._front.line_load,
            queued_requests=len(self._front.line),
            oldest_wait_s=self._front.oldest_wait(),
            last_request_at=self._batcher.last_request_at,
            urgent=urgent,
            words=(*(self._word(member) for member in self.changed.values()), *map(_gone, self.departed)),
        )
        self.changed = {}
        self.departed = []
        self._send(batch)

    def _word(self, member: "Member") -> EngineNotice:
        return EngineNotice(
            machine=member.machine,
            perf=member.candidate.perf,
            load=member.candidate.outstanding,
            in_flight=len(member.costs),
            reported_at=self._world.now,
            drain_seen=member.drain_seen,
        )

    def _send(self, batch: Batch) -> None:
        settings = self._world.settings
        lost, late = self._chance.random(), self._chance.random()
        delay = settings.signal_seconds * self._chance.uniform(0.3, 1.7)
        if lost < settings.lost_share:
            # the batch is lost, but workers keep reporting: the next batch has all of them
            self.changed = dict(self._front.members)
            return
        if late < settings.late_share:
            delay += self._chance.uniform(0.0, settings.late_seconds)
        self._world.after(delay, self._deliver, batch)

    def _deliver(self, batch: Batch) -> None:
        self._world.pilot.hear(batch, self._world.now)


def _gone(machine: Machine) -> EngineNotice:
    return EngineNotice(
        machine=machine, perf=0.0, load=0.0, in_flight=0, reported_at=0.0, drain_seen=False, gone=True
    )
