"""The discrete-event world: requests arrive, machines boot, serve and end, metrics arrive, a controller decides."""

import gc
import heapq
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from simulation.engine.dispatcher import SimulatedDispatcher
from simulation.fleet import SimulatedFleet
from simulation.machine import Bill, Machine
from simulation.series import Series
from simulation.settings import WorldSettings
from simulation.trace import Trace
from stoker_wire.messages import MetricsBatch

Progress = Callable[[float], None]
"""Called with the finished share, 0 to 1."""

TAIL_SECONDS = 3600.0
"""Time after the last arrival for requests that still wait, seconds, unbilled."""


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
        *,
        seed: int = 0,
        max_queue_time: float = 30.0,
        target_queue_time: float = 10.0,
        inactivity_timeout: float | None = None,
        score_from: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(settings, seed)
        self.trace = trace
        self.controller = controller
        self.bill_before = Bill()
        self.busy_before = 0.0
        self.score_from = score_from
        self.counts_before = dict(self.counts)
        self._progress = progress
        self.dispatcher = SimulatedDispatcher(
            self,
            trace,
            controller.on_metrics,
            seed=seed,
            max_queue_time=max_queue_time,
            target_queue_time=target_queue_time,
            inactivity_timeout=inactivity_timeout,
        )
        self.series = Series(self, self.dispatcher, trace.seconds)

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
        self.series.begin()
        self.controller.begin(self)
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

    def _begin_scoring(self, _: Any) -> None:
        self.bill_all()
        self.measure_areas()
        self.over_hours = self.under_hours = 0.0
        self.bill_before.dollars = dict(self.bill.dollars)
        self.bill_before.gpu_hours = dict(self.bill.gpu_hours)
        self.counts_before = dict(self.counts)
        self.busy_before = self.busy_seconds

    def _end(self, _: Any) -> None:
        """Ends the trace and the bill."""
        self.bill_all()
        self.measure_areas()
        self.final_bill = Bill()
        self.final_bill.dollars = dict(self.bill.dollars)
        self.final_bill.gpu_hours = dict(self.bill.gpu_hours)
        self.final_busy = self.busy_seconds
        self.final_areas = (self.over_hours, self.under_hours)
        self.final_counts = dict(self.counts)
        self.series.end()
        self.ended = True
