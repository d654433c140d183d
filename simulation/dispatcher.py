"""The engine of the simulated world: it routes with the production router, and queues.

Its knowledge is as old as in production: finished requests arrive with the worker's next report, drains with the next
read of the endpoint's memo.
"""

import math
import random
from typing import TYPE_CHECKING

from policy.routing.queue_discipline import DeadlineQueue, SortKey, late_cutoff, worker_wait_seconds
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import AllBusy, Candidate, Choice, choose, prefetch_limits
from simulation.machine import Machine
from simulation.signal_sender import SimulatedSignalSender

if TYPE_CHECKING:
    from simulation.world import World

PUMP_SECONDS = 0.02
"""Least interval between two dispatches without an event, seconds."""
DRAIN_SEEN_SECONDS = 1.0
"""Delay until the engine sees a drain in the memo, seconds."""


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
        """Declared cost of its requests that are not known to be finished."""
        self.done: list[int] = []
        """Requests that are finished and not reported yet."""
        self.report_due = False
        self.reported_at = -math.inf
        self.running = -1
        """The running request of a worker that takes one at a time, as known; -1: none."""
        self.running_since = 0.0
        self.seen_at = 0.0
        self.draining = False
        self.drain_seen = False
        self.told_at = 0.0


class SimulatedDispatcher:
    """Routing and queueing."""

    def __init__(
        self,
        world: "World",
        *,
        seed: int,
        max_queue_time: float,
        target_queue_time: float,
        inactivity_timeout: float | None,
    ) -> None:
        self._world = world
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
        """Service start of each request; -1: not started."""
        self.finished = [-1.0] * len(self._works)
        self.line: DeadlineQueue[int] = DeadlineQueue(self._order)
        self.line_load = 0.0
        self._returned: set[int] = set()
        """Requests whose machine is gone."""
        self.members: dict[int, Member] = {}
        self.candidates: list[Candidate] = []
        self._by_launch: dict[str, Member] = {}
        self._service_times = ServiceTimes()
        self._serial = world.settings.slots == 1
        self._pump_at = math.inf
        self.arrived = 0
        self.arrived_load = 0.0
        self.herald = SimulatedSignalSender(
            world,
            self,
            seed=seed,
            target_queue_time=target_queue_time,
            inactivity_timeout=inactivity_timeout,
        )

    @property
    def waiting(self) -> int:
        """Requests in the endpoint's queue."""
        return len(self.line)

    def oldest_wait(self) -> float:
        """Wait of the first request in the queue, seconds."""
        oldest = self.line.oldest
        return 0.0 if oldest is None else self._world.now - self._arrivals[oldest]

    def oldest_unserved_wait(self) -> float:
        """Longest wait of a request, in the queue or on a worker, seconds."""
        oldest = self.line.oldest
        firsts = [] if oldest is None else [oldest]
        firsts += [m.machine.line[0][0] for m in self.members.values() if m.machine.line]
        return self._world.now - min((self._arrivals[n] for n in firsts), default=self._world.now)

    # -- requests

    def arrive(self, request: int) -> None:
        """A client asks for a worker."""
        world = self._world
        world.measure_areas()
        world.inside += 1
        cost = self._costs[request]
        self.arrived += 1
        self.arrived_load += cost
        self.herald.arrived(cost)
        world.series.arrived(self._works[request])
        if self.line or not self._give(request):
            self._line_up(request)
            self.herald.heed_backlog()

    def _order(self, request: int) -> SortKey:
        return (request not in self._returned, self._arrivals[request], request)

    def _line_up(self, request: int) -> None:
        self.line.add(request)
        self.line_load += self._costs[request]

    def _give(self, request: int) -> bool:
        if not self.candidates:
            return False
        cost = self._costs[request]
        told = self._world.settings.end_report_seconds
        chosen = choose(
            self.candidates,
            cost,
            max_queue_time=self._max_queue_time,
            now=self._world.now,
            prefetch=prefetch_limits(
                self._service_times,
                end_report_seconds=told,
                queue_seconds_max=worker_wait_seconds(self._target_queue_time),
            )
            if self._serial
            else None,
            cost_ratio=self._service_times.mean_ratio,
        )
        if not isinstance(chosen, Choice):
            if isinstance(chosen, AllBusy):
                self._pump_later(chosen.retry_seconds)
            return False
        candidate = chosen.candidate
        member = self._by_launch[candidate.launch_id]
        member.costs[request] = cost
        candidate.outstanding += cost
        if member.running < 0:
            member.running, member.running_since, member.seen_at = request, self._world.now, self._world.now
        self._gauge(member)
        self.herald.changed[member.machine.id] = member
        machine = member.machine
        if machine.admit(request, self._works[request], self._world.now):
            self.started[request] = self._world.now
            self._plan_finish(machine)
        if chosen.queue_seconds > self._target_queue_time / 2:
            self.herald.heed_queue()
        return True

    def _gauge(self, member: Member) -> None:
        """Progress of the running request, as the engine knows it."""
        if not self._serial:
            return
        candidate, told = member.candidate, self._world.settings.end_report_seconds
        if member.running < 0:
            candidate.set_idle(self._service_times, told)
            return
        cost = self._costs[member.running]
        candidate.set_running(
            cost,
            queued_load=max(0.0, candidate.outstanding - cost),
            started_at=member.running_since,
            seen_at=member.seen_at,
            end_report_seconds=told,
            service_times=self._service_times,
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
        line, late = self.line, late_cutoff(self._world.now, self._target_queue_time)
        while (request := next(line.in_service_order(late), None)) is not None and self._give(request):
            line.serve(request, late)
            self.line_load -= self._costs[request]
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
        """Delivers a worker's report: finished requests, and the running one."""
        member.report_due = False
        if self.members.get(member.machine.id) is not member:
            return
        now, machine = self._world.now, member.machine
        member.reported_at = now
        for request in member.done:
            cost = member.costs.pop(request, 0.0)
            member.candidate.outstanding -= cost
            if self._serial:
                self._service_times.learn(cost, machine.perf, self.finished[request] - self.started[request])
        member.done.clear()
        if self._serial:
            member.running = machine.running[0][1] if machine.running else -1
            member.running_since, member.seen_at = self.started[member.running], now
        if not member.costs:
            member.candidate.outstanding = 0.0
        self._gauge(member)
        if not member.costs and member.draining and member.drain_seen:
            self.herald.urge("a draining worker holds nothing")
        self.herald.changed[member.machine.id] = member
        if self.line:
            self._pump()

    # -- workers

    def joined(self, machine: Machine) -> None:
        """Handles the first ready report after a start."""
        self._world.after(self._world.settings.report_seconds / 2, self._hear_ready, (machine, machine.epoch))

    def _hear_ready(self, what: tuple[Machine, int]) -> None:
        machine, epoch = what
        if machine.epoch != epoch:
            return
        member = Member(machine)
        self._gauge(member)
        self.members[machine.id] = member
        self._by_launch[machine.launch_id] = member
        self.herald.changed[machine.id] = member
        self._weigh()
        self.herald.urge("a worker has loaded")
        self._pump()

    def drain(self, machine: Machine, draining: bool) -> None:
        """Starts or cancels a drain; the engine sees it after the memo delay."""
        self._world.after(DRAIN_SEEN_SECONDS, self._see_drain, (machine, draining))

    def _see_drain(self, what: tuple[Machine, bool]) -> None:
        machine, draining = what
        member = self.members.get(machine.id)
        if member is None:
            return
        member.draining = member.drain_seen = draining
        self.herald.changed[machine.id] = member
        self._weigh()
        if draining:
            self.herald.urge("a drain was seen")
        else:
            self._pump()

    def left(self, machine: Machine, lost: list[int]) -> None:
        """Removes a worker; its requests are dispatched again at once."""
        member = self.members.pop(machine.id, None)
        self._by_launch.pop(machine.launch_id, None)
        self.herald.changed.pop(machine.id, None)
        if member is not None:
            self._weigh()
            if not member.draining:
                self.herald.departed.append(machine)
        for request in lost:
            self.started[request] = -1.0
        if lost:
            self.herald.urge("a worker does not answer its clients")
            self._returned.update(lost)
            for request in lost:
                self._line_up(request)
            self._pump()

    def _weigh(self) -> None:
        self.candidates = [m.candidate for m in self.members.values() if not m.draining]

    def queue_seconds(self) -> float:
        """Expected queue time of the endpoint, seconds; infinite with work and no worker."""
        held = self.line_load + sum(candidate.outstanding for candidate in self.candidates)
        if held <= 0:
            return 0.0
        perf = sum(candidate.perf for candidate in self.candidates)
        return held / perf if perf > 0 else math.inf
