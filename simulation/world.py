"""The discrete-event world: requests arrive, machines boot, serve and end, metrics arrive, a controller decides."""

import gc
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from simulation.engine.dispatcher import SimulatedDispatcher
from simulation.fleet import SimulatedFleet
from simulation.machine import Machine, Stage
from simulation.settings import WorldSettings
from simulation.trace import Trace
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MetricsBatch

Progress = Callable[[float], None]
"""Called with the finished share, 0 to 1."""

TAIL_SECONDS = 3600.0
"""Time after the last arrival for requests that still wait, seconds, unbilled."""
SAMPLES = 1500
"""Of the workers in one run, at equal intervals."""


@dataclass(slots=True, kw_only=True)
class Sample:
    """The workers at one time, and the requests that arrived since the sample before."""

    at: float
    ready: int
    booting: int
    cold: int
    load: float = 0.0
    """Arrivals, load/s."""
    worst_wait: float = 0.0
    """Longest wait of a request, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Costs, operations and service time of all machines so far."""

    dollars: dict[str, float]
    gpu_hours: dict[str, float]
    counts: dict[str, int]
    busy_seconds: float
    over_hours: float
    under_hours: float


class FleetController(Protocol):
    """The deciding part: the production controller, or a peer."""

    name: str

    def begin(self, world: "World") -> None:
        """Starts the endpoint."""
        ...

    def on_metrics(self, batches: Sequence[MetricsBatch]) -> None:
        """Receives a signal with metrics."""
        ...


class World(SimulatedFleet):
    """One run."""

    def __init__(
        self,
        trace: Trace,
        controller: FleetController,
        settings: WorldSettings,
        config: EndpointConfig,
        *,
        seed: int = 0,
        score_from: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(settings, seed)
        self.trace = trace
        self.controller = controller
        self.score_from = score_from
        self.before = self.final = self.totals()
        """Totals before the scored part, and at its end."""
        self._progress = progress
        self.dispatcher = SimulatedDispatcher(self, trace, controller.on_metrics, config, seed)
        self.samples: list[Sample] = []
        self.sample_seconds = max(trace.seconds / SAMPLES, 1.0)

    def _joined(self, machine: Machine) -> None:
        self.dispatcher.joined(machine)

    def _left(self, machine: Machine, lost: list[int]) -> None:
        self.dispatcher.left(machine, lost)

    def run(self) -> None:
        """Runs the whole trace, and then until no request waits."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._live()
        finally:
            if collecting:
                gc.enable()

    def _live(self) -> None:
        events, times = self._events, self.trace.times
        self.dispatcher.signal_sender.begin()
        self.after(self.sample_seconds, self._sample)
        self.controller.begin(self)
        self.begin_outbids()
        if self.score_from > 0:
            self.at(self.score_from, self._begin_scoring)
        self.at(self.trace.seconds, self._end)
        deadline = self.trace.seconds + TAIL_SECONDS
        arrived, count = 0, len(times)
        next_arrival = times[0] if times else float("inf")
        reported, step = 0, max(1, count // 200)
        pop, arrive = heapq.heappop, self.dispatcher.arrive
        while True:
            if events and events[0][0] <= next_arrival:
                when, _, what, argument = pop(events)
                if when > deadline:
                    break
                self.now = when
                what(argument)
                if self.ended and self.inside == 0 and arrived == count:  # the trace may end with an arrival
                    break
            elif arrived < count:
                self.now = next_arrival
                arrive(arrived)
                arrived += 1
                next_arrival = times[arrived] if arrived < count else float("inf")
                if self._progress is not None and arrived - reported >= step:
                    reported = arrived
                    self._progress(arrived / count)
            else:
                break
        if self._progress is not None:
            self._progress(1.0)

    def totals(self) -> Totals:
        """Costs, operations and service time so far."""
        self.bill_all()
        self.measure_areas()
        return Totals(
            dollars=dict(self.bill.dollars),
            gpu_hours=dict(self.bill.gpu_hours),
            counts=dict(self.counts),
            busy_seconds=self.busy_seconds,
            over_hours=self.over_hours,
            under_hours=self.under_hours,
        )

    def _begin_scoring(self, _: Any) -> None:
        self.before = self.totals()
        self.over_hours = self.under_hours = 0.0

    def _end(self, _: Any) -> None:
        """Ends the trace and the bill."""
        self.final = self.totals()
        self._take_sample()
        self.ended = True

    def _sample(self, _: Any) -> None:
        if not self.ended:
            self._take_sample()
            self.after(self.sample_seconds, self._sample)

    def _take_sample(self) -> None:
        stages = [machine.stage for machine in self.machines.values()]
        ready = stages.count(Stage.READY)
        cold = stages.count(Stage.STOPPED) + stages.count(Stage.STOPPING)
        booting = len(stages) - ready - cold
        self.samples.append(Sample(at=self.now, ready=ready, booting=booting, cold=cold))
