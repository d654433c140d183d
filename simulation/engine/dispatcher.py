"""Dispatches the requests of the simulated world with the production router, and queues them.

Its knowledge is as old as in production: finished requests arrive with the worker's next report, drains with the next
read of the endpoint's memo.
"""

import math
from collections.abc import Callable, Sequence

from policy.routing.queue_discipline import late_cutoff, worker_wait_seconds
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import AllBusy, Candidate, Choice, choose, prefetch_limits
from simulation.engine.signal_sender import SimulatedSignalSender
from simulation.engine.state import EngineState, Member
from simulation.fleet import SimulatedFleet
from simulation.machine import Machine
from simulation.trace import Trace
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MetricsBatch

PUMP_SECONDS = 0.02
"""Least interval between two dispatches without an event, seconds."""
DRAIN_SEEN_SECONDS = 1.0
"""Delay until the engine sees a drain in the memo, seconds."""


class SimulatedDispatcher:
    """Routing and queueing."""

    def __init__(
        self,
        fleet: SimulatedFleet,
        trace: Trace,
        deliver: Callable[[Sequence[MetricsBatch]], None],
        config: EndpointConfig,
        seed: int,
    ) -> None:
        self._fleet = fleet
        self._works = trace.works
        self._config = config
        self.started = [-1.0] * len(self._works)
        """Service start of each request; -1: not started."""
        self.finished = [-1.0] * len(self._works)
        self.state = EngineState(trace.times)
        self._by_launch: dict[str, Member] = {}
        self._service_times = ServiceTimes()
        self._serial = fleet.settings.slots == 1
        self._pump_at = math.inf
        self.arrived = 0
        self.arrived_load = 0.0
        self.signal_sender = SimulatedSignalSender(fleet, self.state, deliver, config, seed)

    # -- requests

    def arrive(self, request: int) -> None:
        """A client asks for a worker."""
        fleet = self._fleet
        fleet.measure_areas()
        fleet.inside += 1
        cost = self._works[request]
        self.arrived += 1
        self.arrived_load += cost
        self.signal_sender.arrived(cost)
        if self.state.queue or not self._give(request):
            self._queue_up(request)
            self.signal_sender.escalate_backlog()

    def _queue_up(self, request: int) -> None:
        self.state.queue.add(request)
        self.state.queued_load += self._works[request]

    def _give(self, request: int) -> bool:
        if not self.state.candidates:
            return False
        cost = self._works[request]
        report_delay = self._fleet.settings.end_report_seconds
        chosen = choose(
            self.state.candidates,
            cost,
            max_queue_time=self._config.max_queue_time,
            now=self._fleet.now,
            prefetch=prefetch_limits(
                self._service_times,
                end_report_seconds=report_delay,
                queue_seconds_max=worker_wait_seconds(self._config.target_queue_time),
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
        if self._serial:
            if member.running < 0:
                member.running, member.running_since, member.seen_at = (
                    request,
                    self._fleet.now,
                    self._fleet.now,
                )
            self._gauge(member)
        else:
            self._report_later(member)
        self.state.changed[member.machine.id] = member
        machine = member.machine
        if machine.admit(request, self._works[request], self._fleet.now):
            self.started[request] = self._fleet.now
            self._plan_finish(machine)
        if chosen.queue_seconds > self._config.target_queue_time / 2:
            self.signal_sender.escalate_queue_time()
        return True

    def _gauge(self, member: Member) -> None:
        """Progress of the running requests, as the engine knows it."""
        candidate, report_delay = member.candidate, self._fleet.settings.end_report_seconds
        if not self._serial:
            known = self._fleet.settings.reports_concurrency and member.costs
            share = 1.0 - member.waiting / len(member.costs) if known else 0.0
            candidate.set_parallel(full=False, served=candidate.outstanding * share)
            return
        if member.running < 0:
            candidate.set_idle(self._service_times, report_delay)
            return
        cost = self._works[member.running]
        candidate.set_running(
            cost,
            queued_load=max(0.0, candidate.outstanding - cost),
            started_at=member.running_since,
            seen_at=member.seen_at,
            end_report_seconds=report_delay,
            service_times=self._service_times,
        )

    def _pump_later(self, seconds: float) -> None:
        at = self._fleet.now + max(seconds, PUMP_SECONDS)
        if at < self._pump_at:
            self._pump_at = at
            self._fleet.at(at, self._pump_again, at)

    def _pump_again(self, at: float) -> None:
        if at == self._pump_at:
            self._pump_at = math.inf
            self._pump()

    def _pump(self) -> None:
        queue, late = self.state.queue, late_cutoff(self._fleet.now, self._config.target_queue_time)
        while (request := next(queue.in_service_order(late), None)) is not None and self._give(request):
            queue.serve(request, late)
            self.state.queued_load -= self._works[request]
        if not queue:
            self.state.queued_load = 0.0

    def _plan_finish(self, machine: Machine) -> None:
        finish = machine.next_finish()
        if finish is not None:
            self._fleet.at_stage(finish, self._finish, machine)

    def _finish(self, machine: Machine) -> None:
        fleet = self._fleet
        machine.epoch += 1
        fleet.measure_areas()
        fleet.inside -= 1
        request, started = machine.finish(fleet.now)
        self.finished[request] = fleet.now
        if started is not None:
            self.started[started] = fleet.now
        self._plan_finish(machine)
        member = self.state.members.get(machine.id)
        if member is not None:
            member.done.append(request)
            self._report_later(member)

    def _report_later(self, member: Member) -> None:
        if not member.report_due:
            member.report_due = True
            self._fleet.at(self._report_due(member), self._report, member)

    def _report_due(self, member: Member) -> float:
        fleet = self._fleet
        settings = fleet.settings
        if self._serial:
            return max(fleet.now + settings.end_seconds, member.reported_at + settings.end_gap_seconds)
        step = settings.report_seconds
        phase = member.machine.id * 0.618034 % 1.0 * step
        return (math.floor((fleet.now - phase) / step) + 1.0) * step + phase

    def _report(self, member: Member) -> None:
        """Delivers a worker's report: finished requests, and the running one."""
        member.report_due = False
        if self.state.members.get(member.machine.id) is not member:
            return
        now, machine = self._fleet.now, member.machine
        member.reported_at = now
        for request in member.done:
            cost = member.costs.pop(request, 0.0)
            member.candidate.outstanding -= cost
            if self._serial:
                self._service_times.learn(cost, machine.perf, self.finished[request] - self.started[request])
        member.done.clear()
        member.waiting = max(0, len(machine.held) - self._fleet.settings.slots)
        if self._serial:
            member.running = machine.running[0][1] if machine.running else -1
            member.running_since, member.seen_at = self.started[member.running], now
        if not member.costs:
            member.candidate.outstanding = 0.0
        self._gauge(member)
        if not member.costs and member.draining:
            self.signal_sender.request_urgent("a draining worker holds nothing")
        self.state.changed[member.machine.id] = member
        if self.state.queue:
            self._pump()

    # -- workers

    def joined(self, machine: Machine) -> None:
        """Handles the first ready report after a start."""
        fleet = self._fleet
        fleet.at_stage(fleet.now + fleet.settings.report_seconds / 2, self._hear_ready, machine)

    def _hear_ready(self, machine: Machine) -> None:
        member = Member(machine, Candidate(machine.launch_id, perf=machine.perf))
        self._gauge(member)
        self.state.members[machine.id] = member
        self._by_launch[machine.launch_id] = member
        self.state.changed[machine.id] = member
        self.state.update_candidates()
        self.signal_sender.request_urgent("a worker has loaded")
        self._pump()

    def drain(self, machine: Machine, draining: bool) -> None:
        """Starts or cancels a drain; the engine sees it after the memo delay."""
        self._fleet.after(DRAIN_SEEN_SECONDS, lambda _: self._see_drain(machine, draining))

    def _see_drain(self, machine: Machine, draining: bool) -> None:
        member = self.state.members.get(machine.id)
        if member is None:
            return
        member.draining = draining
        self.state.changed[machine.id] = member
        self.state.update_candidates()
        if draining:
            self.signal_sender.request_urgent("a drain was seen")
        else:
            self._pump()

    def left(self, machine: Machine, lost: list[int]) -> None:
        """Removes a worker; its requests are dispatched again at once."""
        member = self.state.members.pop(machine.id, None)
        self._by_launch.pop(machine.launch_id, None)
        self.state.changed.pop(machine.id, None)
        if member is not None:
            self.state.update_candidates()
            if not member.draining:
                self.state.departed.append(machine)
        for request in lost:
            self.started[request] = -1.0
        if lost:
            self.signal_sender.request_urgent("a worker does not answer its clients")
            self.state.returned.update(lost)
            for request in lost:
                self._queue_up(request)
            self._pump()
