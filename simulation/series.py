"""Samples of a run for pictures: load, capacity by standing, queue, dollars."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.machine import Stage

if TYPE_CHECKING:
    from simulation.world import World

SAMPLES = 1500


@dataclass(slots=True)
class Samples:
    """One list per quantity, all of the same length; capacities in workers, time in seconds."""

    at: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    """Arrived since the sample before, load/s."""
    ready: list[int] = field(default_factory=list)
    booting: list[int] = field(default_factory=list)
    cold: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    wait_seconds: list[float] = field(default_factory=list)
    """Of the first in the queue."""
    dollars: list[float] = field(default_factory=list)
    """Spent so far."""


class Series:
    """Takes a sample at even steps."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._step = max(world.trace.seconds / SAMPLES, 1.0)
        self._arrived = 0.0
        self.samples = Samples()

    def begin(self) -> None:
        """The first sample is taken one step after the start."""
        self._world.after(self._step, self._sample)

    def end(self) -> None:
        """The trace is over."""
        self._take()

    def arrived(self, work: float) -> None:
        """A request came."""
        self._arrived += work

    def _sample(self, _: Any) -> None:
        if self._world.ended:
            return
        self._take()
        self._world.after(self._step, self._sample)

    def _take(self) -> None:
        world, samples = self._world, self.samples
        stages = [machine.stage for machine in world.machines.values()]
        cold = stages.count(Stage.STOPPED) + stages.count(Stage.STOPPING)
        ready = stages.count(Stage.READY)
        for machine in world.machines.values():
            machine.bill(world.now)
        samples.at.append(world.now)
        samples.load.append(self._arrived / self._step)
        samples.ready.append(ready)
        samples.cold.append(cold)
        samples.booting.append(len(stages) - ready - cold)
        samples.waiting.append(world.front.waiting)
        samples.wait_seconds.append(world.front.oldest_wait())
        samples.dollars.append(sum(world.bill.dollars.values()))
        self._arrived = 0.0
