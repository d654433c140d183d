"""The signal sender of the simulated engine; the engine's metrics batcher and escalation decide when it sends.

Batches have a delay, and some are late or lost.
"""

import math
import random
from collections.abc import Callable, Sequence

from policy.signalling.escalation import Escalation
from policy.signalling.metrics_batcher import Gauges, MetricsBatcher
from policy.signalling.significance import QueueState
from simulation.engine.state import EngineState, Member
from simulation.fleet import SimulatedFleet
from simulation.machine import Machine, Stage
from simulation.settings import EPOCH
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import Condition, MetricsBatch, WorkerMetrics

TICK_SECONDS = 0.25
"""Least interval between two checks without an event, seconds."""
REPEAT_SECONDS = 30.0
"""A worker without changes is reported with the first batch after this time, seconds."""

_BATCH = MetricsBatch(engine_id="engine", sequence=0, sent_at=0.0)
_WORKER = WorkerMetrics(launch_id="", instance_id=0, condition=Condition.READY)
"""Copied with other values: several times as fast as a new model."""


class SimulatedSignalSender:
    """Counts arrivals since the last batch, and sends the next one when it is due."""

    def __init__(
        self,
        fleet: SimulatedFleet,
        state: EngineState,
        deliver: Callable[[Sequence[MetricsBatch]], None],
        config: EndpointConfig,
        seed: int,
    ) -> None:
        self._fleet = fleet
        self._state = state
        self._deliver_to = deliver
        self._chance = random.Random(f"{seed} metrics")
        self._config = config
        self._batcher = MetricsBatcher(fleet.now)
        self._escalation = Escalation()
        self._tells_waiting = fleet.settings.slots > 1 and fleet.settings.reports_concurrency
        self._sequence = 0
        self._look_at = math.inf

    def begin(self) -> None:
        """Starts the metrics batcher."""
        self._look_later()

    def arrived(self, cost: float) -> None:
        """Counts a new request."""
        self._batcher.record_arrival(cost, self._fleet.now)

    def request_urgent(self, cause: str) -> None:
        """Sends the next batch at once."""
        self._batcher.request_urgent(cause, self._fleet.now)
        self._look_later()

    def escalate_backlog(self) -> None:
        """Escalates the first request that no worker can serve, and each doubling of the queue."""
        if self._state.candidates:
            self._escalation.reset_backlog()
            self.escalate_queue_time()
            return
        cause = self._escalation.on_backlog(self._state.queued_load + len(self._state.queue))
        if cause is not None:
            self.request_urgent(cause)

    def escalate_queue_time(self) -> None:
        """Escalates an expected queue time over its target, and each growth by half."""
        cause = self._escalation.on_queue_time(self._state.queue_seconds(), self._config.target_queue_time)
        if cause is not None:
            self.request_urgent(cause)

    def _look_later(self) -> None:
        """Schedules the next check of the metrics batcher."""
        at = self._batcher.urgent_due_at()
        if at is None:
            at = max(
                self._batcher.not_due_before(self._config.inactivity_timeout), self._fleet.now + TICK_SECONDS
            )
        if at < self._look_at:
            self._look_at = at
            self._fleet.at(at, self._look, at)

    def _look(self, at: float) -> None:
        fleet = self._fleet
        if at != self._look_at or (fleet.ended and not fleet.inside):
            return
        self._look_at = math.inf
        gauges = self._gauges()
        urgent = self._batcher.due(gauges, fleet.now)
        if urgent is not None:
            self._send(gauges, urgent)
        self._look_later()

    def _gauges(self) -> Gauges:
        state, machines = self._state, self._fleet.machines
        return Gauges(
            queue=QueueState.of(len(state.queue), state.queue_seconds(), self._config.target_queue_time),
            workers=len(machines),
            workers_cold=sum(machine.stage is Stage.STOPPED for machine in machines.values()),
            holding=any(member.costs for member in state.members.values()),
            inactivity_timeout=self._config.inactivity_timeout,
        )

    def _send(self, gauges: Gauges, urgent: str) -> None:
        """Sends as many batches as there are windows of arrivals; the last one has the workers."""
        state, now, settings = self._state, self._fleet.now, self._fleet.settings
        for number, member in state.members.items():
            if number in state.changed or now - member.sent_at >= REPEAT_SECONDS or member.draining:
                member.sent_at = now
                state.changed[number] = member
        self._sequence += 1
        windows = self._batcher.take_windows(gauges, now)
        last, batches = self._batcher.last_request_at, list[MetricsBatch]()
        for number, window in enumerate(windows):
            values: dict[str, object] = {
                "sequence": self._sequence * 2 + number,
                "sent_at": EPOCH + window.ended_at,
                "window_s": window.seconds,
                "arrived_load": window.load,
                "arrived_requests": window.requests,
                "queued_load": state.queued_load,
                "queued_requests": len(state.queue),
                "last_request_at": None if last is None else EPOCH + last,
            }
            if window is windows[-1]:
                values |= {"urgent": urgent, "workers": tuple(map(self._report, state.changed.values()))}
            batches.append(_BATCH.model_copy(update=values))
        departed, state.changed, state.departed = state.departed, {}, []
        lost, late = self._chance.random(), self._chance.random()
        delay = settings.signal_seconds * self._chance.uniform(0.3, 1.7)
        if lost < settings.lost_share:
            # The batch is lost, but workers keep reporting: the next batch has all of them.
            state.changed = dict(state.members)
            return
        if late < settings.late_share:
            delay += self._chance.uniform(0.0, settings.late_seconds)
        self._fleet.after(delay, lambda _: self._deliver(batches, departed))

    def _report(self, member: Member) -> WorkerMetrics:
        return _WORKER.model_copy(
            update={
                "launch_id": member.machine.launch_id,
                "instance_id": member.machine.id,
                "perf": member.candidate.perf,
                "load": member.candidate.outstanding,
                "in_flight": len(member.costs),
                "waiting": min(member.waiting, len(member.costs)) if self._tells_waiting else None,
                "reported_at": EPOCH + self._fleet.now,
                "drain_seen": member.draining,
            }
        )

    def _deliver(self, batches: list[MetricsBatch], departed: list[Machine]) -> None:
        if departed:
            since = EPOCH + self._fleet.now
            gone = tuple(
                _WORKER.model_copy(
                    update={"launch_id": each.launch_id, "instance_id": each.id, "suspect_since": since}
                )
                for each in departed
            )
            batches[-1] = batches[-1].model_copy(update={"workers": batches[-1].workers + gone})
        self._deliver_to(batches)
