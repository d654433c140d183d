"""The herald of the simulated engine: the engine's own pulse and alarms say when the pilot is told what.

What it tells travels, is late, or is lost.
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
"""The pulse is not felt more often of itself."""
TELL_SECONDS = 30.0
"""A worker of which there is no news is told of with the first batch after so long."""


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
    """It stopped answering its clients."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """What the engine saw since its last batch: the same figures as the `MetricsBatch` of each window."""

    sequence: int
    sent_at: float
    windows: tuple[Window, ...]
    """Stretches of arrivals, oldest first."""
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
        """Workers of which there is something to tell."""
        self.departed: list[Machine] = []
        """Workers that stopped without having been drained."""
        self._sequence = 0
        self._look_at = math.inf

    def begin(self) -> None:
        """The pulse starts."""
        self._look_later()

    def arrived(self, cost: float) -> None:
        """A new request came in."""
        self._batcher.record_arrival(cost, self._world.now)

    def urge(self, cause: str) -> None:
        """Tell it at once."""
        self._batcher.request_urgent(cause, self._world.now)
        self._look_later()

    def heed_backlog(self) -> None:
        """Requests wait: the first that nobody can serve, and each doubling, cannot wait to be told."""
        if self._front.candidates:
            self._escalation.reset_backlog()
            self.heed_queue()
            return
        cause = self._escalation.on_backlog(self._front.line_load + len(self._front.line))
        if cause is not None:
            self.urge(cause)

    def heed_queue(self) -> None:
        """The expected queue time passes its target, or has grown by half since that was told."""
        cause = self._escalation.on_queue_time(self._front.queue_seconds(), self._target_queue_time)
        if cause is not None:
            self.urge(cause)

    def _look_later(self) -> None:
        """See that the pulse is felt when something can be due."""
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
            # its news is lost with it, but workers keep reporting: the next batch tells of all of them
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
