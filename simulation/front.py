"""The engine of the simulated world: it routes with the production router, queues, and tells the pilot what it saw.

Its knowledge is as old as in production: finished requests are known from the worker's next report, drains from the
next look at the endpoint, and what it tells travels, is late, or is lost.
"""

import math
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policy.lengths import Lengths
from policy.routing import Candidate, Choice, Later, ahead, choose
from simulation.machine import Machine

if TYPE_CHECKING:
    from simulation.world import World

RATE_CHANGE = 0.1
"""Relative change of the arrival rate that is news, as in the engine's pulse."""
QUEUE_CHANGE = 0.25
URGENT_GAP_SECONDS = 0.1
TELL_SECONDS = 55.0
"""An idle worker is told of so often: silence would mean that it is dead."""
PUMP_SECONDS = 0.02
"""The line is not looked at more often because of time alone."""
DRAIN_SEEN_SECONDS = 1.0
"""Until the engine's look at the endpoint shows it that a worker drains."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    urgent: str
    words: tuple[Word, ...]


class Member:
    """A ready worker as the engine knows it."""

    __slots__ = (
        "candidate",
        "costs",
        "done",
        "drain_seen",
        "draining",
        "machine",
        "report_due",
        "reported_at",
        "running",
        "running_since",
        "seen_at",
        "told_at",
    )

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.candidate = Candidate(machine.launch_id, perf=machine.perf)
        self.costs: dict[int, float] = {}
        """Declared cost of what was given to it and is not known to be finished."""
        self.done: list[int] = []
        """Finished, not reported yet."""
        self.report_due = False
        self.reported_at = -math.inf
        self.running = -1
        """What it is known to work on, if it takes one request at a time; -1: nothing."""
        self.running_since = 0.0
        self.seen_at = 0.0
        self.draining = False
        self.drain_seen = False
        self.told_at = 0.0


class Front:
    """Routing, queueing, and the pulse of metrics."""

    def __init__(self, world: "World", *, seed: int, max_queue_time: float, target_queue_time: float) -> None:
        self._world = world
        self._chance = random.Random(f"{seed} metrics")
        self._works = world.trace.works
        self._arrivals = world.trace.times
        self._max_queue_time = max_queue_time
        self._target_queue_time = target_queue_time
        error = world.settings.cost_error
        span = math.log(error)
        lying = random.Random(f"{seed} costs")
        self._costs = (
            self._works
            if error <= 1
            else tuple(w * math.exp(lying.uniform(-span, span)) for w in self._works)
        )
        self.started = [-1.0] * len(self._works)
        """When each request began to be served; -1: not yet."""
        self.finished = [-1.0] * len(self._works)
        self.line: deque[int] = deque()
        self.line_load = 0.0
        self.members: dict[int, Member] = {}
        self.candidates: list[Candidate] = []
        self._by_launch: dict[str, Member] = {}
        self._lengths = Lengths()
        self._serial = world.settings.slots == 1
        self._perf = 0.0
        self._pump_at = math.inf
        self.arrived = 0
        self.arrived_load = 0.0
        # the pulse
        self._sequence = 0
        self._slice_at = self._steady_at = self._told_at = 0.0
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._told_rate = 0.0
        self._told_queue = (0, 0.0)
        self._touched = False
        self._urgent: list[str] = []
        self._urgent_planned = False
        self._last_request_at: float | None = None
        self._alarmed_queue = 0.0
        self._alarmed_backlog = 0.0
        self._changed: dict[int, Member] = {}
        self._departed: list[Machine] = []

    @property
    def waiting(self) -> int:
        """Requests in the endpoint's queue."""
        return len(self.line)

    def oldest_wait(self) -> float:
        """Of the first in the queue, seconds."""
        return self._world.now - self._arrivals[self.line[0]] if self.line else 0.0

    def oldest_unserved_wait(self) -> float:
        """Of the request that has waited longest, in the queue or on a worker, seconds."""
        firsts = [self.line[0]] if self.line else []
        firsts += [m.machine.line[0][0] for m in self.members.values() if m.machine.line]
        return self._world.now - min((self._arrivals[n] for n in firsts), default=self._world.now)

    def begin(self) -> None:
        """The pulse starts."""
        self._world.after(self._world.settings.slice_seconds, self._tick)

    # -- requests

    def arrive(self, request: int) -> None:
        """A client asks for a worker."""
        world = self._world
        world.measure_areas()
        world.inside += 1
        cost = self._costs[request]
        self.arrived += 1
        self.arrived_load += cost
        self._slice_load += cost
        self._slice_requests += 1
        self._last_request_at = world.now
        world.series.arrived(self._works[request])
        if self.line or not self._give(request):
            self.line.append(request)
            self.line_load += cost
            self._heed_backlog()

    def _give(self, request: int) -> bool:
        if not self.candidates:
            return False
        cost = self._costs[request]
        told = self._world.settings.ends_told_seconds
        behind = max(0.0, self.line_load - cost) if self.line else 0.0
        line_seconds = behind / self._perf if self._perf > 0 else 0.0
        chosen = choose(
            self.candidates,
            cost,
            max_queue_time=self._max_queue_time,
            now=self._world.now,
            ahead=ahead(self._lengths, line_seconds=line_seconds, told_within=told) if self._serial else None,
            stretch=self._lengths.mean,
        )
        if not isinstance(chosen, Choice):
            if isinstance(chosen, Later):
                self._pump_later(chosen.seconds)
            return False
        candidate = chosen.candidate
        member = self._by_launch[candidate.launch_id]
        member.costs[request] = cost
        candidate.outstanding += cost
        if member.running < 0:
            member.running, member.running_since, member.seen_at = request, self._world.now, self._world.now
        self._gauge(member)
        self._changed[member.machine.id] = member
        machine = member.machine
        if machine.admit(request, self._works[request], self._world.now):
            self.started[request] = self._world.now
            self._plan_finish(machine)
        if chosen.queue_seconds > self._target_queue_time / 2:
            self._heed_queue()
        return True

    def _gauge(self, member: Member) -> None:
        """How far it has got, as the engine knows it."""
        if not self._serial:
            return
        candidate, told = member.candidate, self._world.settings.ends_told_seconds
        if member.running < 0:
            candidate.rests(self._lengths, told)
            return
        cost = self._costs[member.running]
        candidate.works_on(
            cost,
            behind=max(0.0, candidate.outstanding - cost),
            started_at=member.running_since,
            seen_at=member.seen_at,
            told_within=told,
            lengths=self._lengths,
        )

    def _pump_later(self, seconds: float) -> None:
        at = self._world.now + max(seconds, PUMP_SECONDS)
        if at < self._pump_at:
            self._pump_at = at
            self._world.at(at, self._pump_again, at)

    def _pump_again(self, at: float) -> None:
        if at == self._pump_at:
            self._pump_at = math.inf
            self._pump()

    def _pump(self) -> None:
        line = self.line
        while line and self._give(line[0]):
            self.line_load -= self._costs[line.popleft()]
        if not line:
            self.line_load = 0.0

    def _plan_finish(self, machine: Machine) -> None:
        finish = machine.next_finish()
        if finish is not None:
            self._world.at(finish, self._finish, (machine, machine.epoch))

    def _finish(self, what: tuple[Machine, int]) -> None:
        machine, epoch = what
        if machine.epoch != epoch:
            return
        world = self._world
        machine.epoch += 1
        world.measure_areas()
        world.inside -= 1
        request, started = machine.finish(world.now)
        self.finished[request] = world.now
        if started is not None:
            self.started[started] = world.now
        self._plan_finish(machine)
        member = self.members.get(machine.id)
        if member is not None:
            member.done.append(request)
            if not member.report_due:
                member.report_due = True
                world.at(self._report_due(member), self._report, member)

    def _report_due(self, member: Member) -> float:
        world = self._world
        settings = world.settings
        if self._serial:
            return max(world.now + settings.end_seconds, member.reported_at + settings.end_gap_seconds)
        step = settings.report_seconds
        phase = member.machine.id * 0.618034 % 1.0 * step
        return (math.floor((world.now - phase) / step) + 1.0) * step + phase

    def _report(self, member: Member) -> None:
        """The worker says what it finished, and what it is at."""
        member.report_due = False
        if self.members.get(member.machine.id) is not member:
            return
        now, machine = self._world.now, member.machine
        member.reported_at = now
        for request in member.done:
            cost = member.costs.pop(request, 0.0)
            member.candidate.outstanding -= cost
            if self._serial:
                self._lengths.learn(cost, machine.perf, self.finished[request] - self.started[request])
        member.done.clear()
        if self._serial:
            member.running = machine.running[0][1] if machine.running else -1
            member.running_since, member.seen_at = self.started[member.running], now
        if not member.costs:
            member.candidate.outstanding = 0.0
        self._gauge(member)
        if not member.costs and member.draining and member.drain_seen:
            self.urge("a draining worker holds nothing")
        self._changed[member.machine.id] = member
        if self.line:
            self._pump()

    # -- workers

    def joined(self, machine: Machine) -> None:
        """It reports ready for the first time since it was started."""
        self._world.after(self._world.settings.report_seconds / 2, self._hear_ready, (machine, machine.epoch))

    def _hear_ready(self, what: tuple[Machine, int]) -> None:
        machine, epoch = what
        if machine.epoch != epoch:
            return
        member = Member(machine)
        self._gauge(member)
        self.members[machine.id] = member
        self._by_launch[machine.launch_id] = member
        self._changed[machine.id] = member
        self._weigh()
        self.urge("a worker has loaded")
        self._pump()

    def drain(self, machine: Machine, draining: bool) -> None:
        """The pilot decided that it gets no more requests, or does again; the engine sees it a moment later."""
        self._world.after(DRAIN_SEEN_SECONDS, self._see_drain, (machine, draining))

    def _see_drain(self, what: tuple[Machine, bool]) -> None:
        machine, draining = what
        member = self.members.get(machine.id)
        if member is None:
            return
        member.draining = member.drain_seen = draining
        self._changed[machine.id] = member
        self._weigh()
        if draining:
            self.urge("a drain was seen")
        else:
            self._pump()

    def left(self, machine: Machine, lost: list[int]) -> None:
        """It serves no more; what it held asks for another worker at once."""
        member = self.members.pop(machine.id, None)
        self._by_launch.pop(machine.launch_id, None)
        self._changed.pop(machine.id, None)
        if member is not None:
            self._weigh()
            if not member.draining:
                self._departed.append(machine)
        for request in lost:
            self.started[request] = -1.0
        if lost:
            self.urge("a worker does not answer its clients")
            self.line.extendleft(reversed(lost))
            self.line_load += sum(self._costs[request] for request in lost)
            self._pump()

    def _weigh(self) -> None:
        self.candidates = [m.candidate for m in self.members.values() if not m.draining]
        self._perf = sum(candidate.perf for candidate in self.candidates)

    # -- what is told, and when

    def queue_seconds(self) -> float:
        """Expected queue time over the endpoint; infinite with work and nobody to do it."""
        held = self.line_load + sum(candidate.outstanding for candidate in self.candidates)
        if held <= 0:
            return 0.0
        perf = sum(candidate.perf for candidate in self.candidates)
        return held / perf if perf > 0 else math.inf

    def urge(self, cause: str) -> None:
        """Tell it at once."""
        if cause not in self._urgent:
            self._urgent.append(cause)
        if not self._urgent_planned:
            self._urgent_planned = True
            self._world.after(URGENT_GAP_SECONDS, self._tell_urgent)

    def _heed_backlog(self) -> None:
        if self.candidates:
            self._alarmed_backlog = 0.0
            self._heed_queue()
            return
        backlog = self.line_load + len(self.line)
        if self._alarmed_backlog == 0 or backlog >= 2 * self._alarmed_backlog:
            self._alarmed_backlog = backlog
            self.urge("requests wait and no worker is ready")

    def _heed_queue(self) -> None:
        queue = self.queue_seconds()
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
        if self._touched or self._rate_changed() or self._level_changed():
            self._tell()
            return
        self._steady_load += self._slice_load
        self._steady_requests += self._slice_requests
        self._slice_load, self._slice_requests, self._slice_at = 0.0, 0, now
        speaking = bool(world.machines) or bool(self.line) or self._steady_requests > 0
        asleep = not self.members and not self._steady_requests and not self._told_rate
        pause = world.settings.cold_heartbeat_seconds if asleep else world.settings.heartbeat_seconds
        if speaking and now - self._told_at >= pause:
            self._changed = dict(self.members)
            self._tell()

    def _rate_changed(self) -> bool:
        if self._told_rate < 0:
            return True
        rate = self._slice_load / (self._world.now - self._slice_at)
        return abs(rate - self._told_rate) > RATE_CHANGE * max(rate, self._told_rate)

    def _level_changed(self) -> bool:
        requests, seconds = self._told_queue
        if bool(self.line) != bool(requests) or abs(len(self.line) - requests) > QUEUE_CHANGE * requests:
            return True
        queue = self.queue_seconds()
        change = abs((0.0 if math.isinf(queue) else queue) - seconds)
        return change >= 1.0 and change > QUEUE_CHANGE * seconds

    def _tell(self) -> None:
        world, now = self._world, self._world.now
        windows = []
        steady = self._slice_at - self._steady_at
        if steady > 0 and (self._steady_requests or self._told_rate):
            windows.append((steady, self._steady_load, self._steady_requests, self._slice_at))
        current = max(0.0, now - self._slice_at)
        if current > 0 or self._slice_requests or not windows:
            windows.append((current, self._slice_load, self._slice_requests, now))
        seconds, load, requests, _ = windows[-1]
        if seconds >= world.settings.slice_seconds / 2:
            self._told_rate = load / seconds
        elif requests:
            self._told_rate = -1.0
        queue = self.queue_seconds()
        self._told_queue = (len(self.line), 0.0 if math.isinf(queue) else queue)
        for number, member in self.members.items():
            if number in self._changed or now - member.told_at >= TELL_SECONDS:
                member.told_at = now
                self._changed[number] = member
        self._sequence += 1
        batch = Batch(
            sequence=self._sequence,
            sent_at=now,
            windows=tuple(windows),
            queued_load=self.line_load,
            queued_requests=len(self.line),
            oldest_wait_s=self.oldest_wait(),
            last_request_at=self._last_request_at,
            urgent=", ".join(self._urgent),
            words=(*(self._word(member) for member in self._changed.values()), *map(_gone, self._departed)),
        )
        self._slice_at = self._steady_at = self._told_at = now
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._touched = False
        self._urgent.clear()
        self._changed = {}
        self._departed = []
        self._send(batch)

    def _word(self, member: Member) -> Word:
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
            self._changed = dict(self.members)
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
