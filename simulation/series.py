"""Samples of a run for pictures: load, capacity by state, queue, dollars."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from simulation.engine.dispatcher import SimulatedDispatcher
from simulation.fleet import SimulatedFleet
from simulation.machine import Stage

SAMPLES = 1500


@dataclass(slots=True)
class Samples:
    """One list per quantity, all of the same length; capacities in workers, time in seconds."""

    at: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    """Arrivals since the last sample, load/s."""
    ready: list[int] = field(default_factory=list)
    booting: list[int] = field(default_factory=list)
    cold: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    """Wait of the first request in the queue, seconds."""
    worst_wait: list[float] = field(default_factory=list)
    """Longest wait of the requests that arrived since the last sample, seconds."""
    dollars: list[float] = field(default_factory=list)
    """Dollars spent so far."""

    def scored(self, begin: float, times: Sequence[float], waits: Sequence[float]) -> "Samples":
        """The samples after `begin`, counted from it, with the waits of the requests that arrived at `times`."""
        first = bisect_right(self.at, begin)
        spent = self.dollars[first - 1] if first else 0.0
        after = Samples(
            **{
                each.name: getattr(self, each.name)[first:]
                for each in fields(self)
                if each.name != "worst_wait"
            }
        )
        after.at = [at - begin for at in after.at]
        after.dollars = [dollars - spent for dollars in after.dollars]
        after.worst_wait = [0.0] * len(after.at)
        for at, wait in zip(times, waits, strict=True):
            slot = bisect_left(after.at, at - begin)
            if at >= begin and slot < len(after.at):
                never = self.at[-1] - at
                after.worst_wait[slot] = max(after.worst_wait[slot], min(wait, never))
        return after


class Series:
    """Takes samples at equal intervals."""

    def __init__(self, fleet: SimulatedFleet, dispatcher: SimulatedDispatcher, seconds: float) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._step = max(seconds / SAMPLES, 1.0)
        self.samples = Samples()

    def begin(self) -> None:
        """The first sample is taken one step after the start."""
        self._fleet.after(self._step, self._sample)

    def end(self) -> None:
        """Ends the sampling."""
        self._take()

    def _sample(self, _: Any) -> None:
        if self._fleet.ended:
            return
        self._take()
        self._fleet.after(self._step, self._sample)

    def _take(self) -> None:
        fleet, samples = self._fleet, self.samples
        stages = [machine.stage for machine in fleet.machines.values()]
        cold = stages.count(Stage.STOPPED) + stages.count(Stage.STOPPING)
        ready = stages.count(Stage.READY)
        fleet.bill_all()
        samples.at.append(fleet.now)
        samples.load.append(self._dispatcher.take_arrived_work() / self._step)
        samples.ready.append(ready)
        samples.cold.append(cold)
        samples.booting.append(len(stages) - ready - cold)
        samples.waiting.append(len(self._dispatcher.state.queue))
        samples.wait_seconds.append(self._dispatcher.state.oldest_wait(fleet.now))
        samples.dollars.append(sum(fleet.bill.dollars.values()))
