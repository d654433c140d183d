"""The herald of the simulated engine: when the pilot is told what, by the rules of the engine's own pulse.

What it tells travels, is late, or is lost.
"""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policy.news import Arrivals, Waiting, arrivals_moved, seems_idle, waiting_moved
from simulation.machine import Machine

if TYPE_CHECKING:
    from simulation.front import Front, Member
    from simulation.world import World

URGENT_GAP_SECONDS = 0.1
TELL_SECONDS = 55.0
"""An idle worker is told of so often: silence would mean that it is dead."""


@dataclass(slots=True, kw_only=True)
class Word:
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
    """What the engine saw since its last batch: the same figures as a `MetricsBatch`."""

    sequence: int
    sent_at: float
    windows: tuple[tuple[float, float, int, float], ...]
    """(seconds, load, requests, end) of each stretch of arrivals, oldest first."""
    queued_load: float
    queued_requests: int
    oldest_wait_s: float
    last_request_at: float | None
    late_load: float | None
    urgent: str
    words: tuple[Word, ...]


class Herald:
    """Counts arrivals since the last batch, and sends the next one when it is due."""

    def __init__(
        self,
        world: "World",
        front: "Front",
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
        self.changed: dict[int, Member] = {}
        """Workers of which there is something to tell."""
        self.departed: list[Machine] = []
        """Workers that stopped without having been drained."""
        self._sequence = 0
        self._slice_at = self._steady_at = self._told_at = 0.0
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._told: Arrivals | None = Arrivals()
        """The last arrivals that were told, as a rate; None: too short to be one, and the next full slice is news in any case."""
        self._told_waiting = Waiting()
        self._urgent: list[str] = []
        self._urgent_planned = False
        self._last_request_at: float | None = None
        self._told_request_at: float | None = None
        self._late_load: float | None = None
        self._alarmed_queue = 0.0
        self._alarmed_backlog = 0.0

    def begin(self) -> None:
        """The pulse starts."""
        self._world.after(self._world.settings.slice_seconds, self._tick)

    def arrived(self, cost: float) -> None:
        """A new request came in."""
        self._slice_load += cost
        self._slice_requests += 1
        self._last_request_at = self._world.now

    def waited(self, cost: float, *, late: bool) -> None:
        """It became known of a request whether it waited too long."""
        self._late_load = (self._late_load or 0.0) + (cost if late else 0.0)

    def urge(self, cause: str) -> None:
        """Tell it at once."""
        if cause not in self._urgent:
            self._urgent.append(cause)
        if not self._urgent_planned:
            self._urgent_planned = True
            self._world.after(URGENT_GAP_SECONDS, self._tell_urgent)

    def heed_backlog(self) -> None:
        """Requests wait: the first that nobody can serve, and each doubling, cannot wait to be told."""
        if self._front.candidates:
            self._alarmed_backlog = 0.0
            self.heed_queue()
            return
        backlog = self._front.line_load + len(self._front.line)
        if self._alarmed_backlog == 0 or backlog >= 2 * self._alarmed_backlog:
            self._alarmed_backlog = backlog
            self.urge("requests wait and no worker is ready")

    def heed_queue(self) -> None:
        """The expected queue time passes its target, or has grown by half since that was told."""
        queue = self._front.queue_seconds()
        if queue <= self._target_queue_time:
            if queue < self._target_queue_time / 2:
                self._alarmed_queue = 0.0
        elif queue >= 1.5 * self._alarmed_queue and not math.isinf(queue):
            self._alarmed_queue = queue
            self.urge("expected queue time is over target_queue_time")

    def _tell_urgent(self, _: Any) -> None:
        self._urgent_planned = False
        if self._urgent:
            self._tell()

    def _tick(self, _: Any) -> None:
        world = self._world
        if world.ended and not world.inside:
            return
        world.after(world.settings.slice_seconds, self._tick)
        now = world.now
        if now - self._slice_at < world.settings.slice_seconds * 0.999:
            return
        if self._rate_changed() or self._level_changed():
            self._tell()
            return
        self._steady_load += self._slice_load
        self._steady_requests += self._slice_requests
        self._slice_load, self._slice_requests, self._slice_at = 0.0, 0, now
        # the next tick would be too late
        if seems_idle(
            self._told_request_at,
            self._last_request_at,
            self._inactivity_timeout,
            now + world.settings.slice_seconds,
        ):
            self._tell()
            return
        speaking = bool(world.machines) or bool(self._front.line) or self._steady_requests > 0
        asleep = not self._front.members and not self._steady_requests and not self._told_load
        pause = world.settings.cold_heartbeat_seconds if asleep else world.settings.heartbeat_seconds
        if speaking and now - self._told_at >= pause:
            self.changed = dict(self._front.members)
            self._tell()

    @property
    def _told_load(self) -> bool:
        """Whether what was told last was load, as far as can be said."""
        return self._told is None or self._told.load > 0

    def _rate_changed(self) -> bool:
        """This slice says so, or all slices since the last batch do: small steps add up."""
        told = self._told
        if told is None:
            return True
        now = self._world.now
        load, requests = self._slice_load, self._slice_requests
        return arrivals_moved(told, Arrivals(now - self._slice_at, load, requests)) or arrivals_moved(
            told, Arrivals(now - self._steady_at, self._steady_load + load, self._steady_requests + requests)
        )

    def _level_changed(self) -> bool:
        return waiting_moved(self._told_waiting, self._waiting())

    def _waiting(self) -> Waiting:
        return Waiting.of(len(self._front.line), self._front.queue_seconds(), self._target_queue_time)

    def _tell(self) -> None:
        world, now = self._world, self._world.now
        windows = []
        steady = self._slice_at - self._steady_at
        if steady > 0 and (self._steady_requests or self._told_load):
            windows.append((steady, self._steady_load, self._steady_requests, self._slice_at))
        current = max(0.0, now - self._slice_at)
        if current > 0 or self._slice_requests or not windows:
            windows.append((current, self._slice_load, self._slice_requests, now))
        seconds, load, requests, _ = windows[-1]
        if seconds >= world.settings.slice_seconds / 2:
            self._told = Arrivals(seconds, load, requests)
        elif requests:
            self._told = None
        self._told_waiting = self._waiting()
        for number, member in self._front.members.items():
            if number in self.changed or now - member.told_at >= TELL_SECONDS:
                member.told_at = now
                self.changed[number] = member
        self._sequence += 1
        batch = Batch(
            sequence=self._sequence,
            sent_at=now,
            windows=tuple(windows),
            queued_load=self._front.line_load,
            queued_requests=len(self._front.line),
            oldest_wait_s=self._front.oldest_wait(),
            last_request_at=self._last_request_at,
            late_load=self._late_load,
            urgent=", ".join(self._urgent),
            words=(*(self._word(member) for member in self.changed.values()), *map(_gone, self.departed)),
        )
        self._slice_at = self._steady_at = self._told_at = now
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._late_load = None
        self._told_request_at = self._last_request_at
        self._urgent.clear()
        self.changed = {}
        self.departed = []
        self._send(batch)

    def _word(self, member: "Member") -> Word:
        return Word(
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


def _gone(machine: Machine) -> Word:
    return Word(
        machine=machine, perf=0.0, load=0.0, in_flight=0, reported_at=0.0, drain_seen=False, gone=True
    )
