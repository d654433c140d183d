"""Shared by all peers: a wanted number of replicas, and the operations that reach it.

Peers get the best variant of their systems: the production router and queue, a drain before each stop, a cold pool
where the market keeps one, failed boots replaced, and the cheapest machine per unit of work, known beforehand.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.scaling.bounds.oracle import reference
from simulation.machine import Machine, Stage
from stoker_wire.market import Offer
from stoker_wire.messages import MetricsBatch

if TYPE_CHECKING:
    from simulation.world import World

BOOT_TIMEOUT_SECONDS = 1200.0
START_TIMEOUT_SECONDS = 120.0
OFFERS_SECONDS = 60.0
COLD_SECONDS = 9800.0
"""A stopped machine is released when its disk has cost as much as the boot that it saves (2.4 % of its price, 235 s).
"""


class Signals:
    """The inputs of a peer's rule, in its own units. Requests are counted at the engine."""

    def __init__(self, world: "World") -> None:
        self._world = world

    @property
    def now(self) -> float:
        """Seconds."""
        return self._world.now

    @property
    def arrived(self) -> int:
        """Requests since the start."""
        return self._world.dispatcher.arrived

    @property
    def arrived_load(self) -> float:
        """Load since the start, as declared."""
        return self._world.dispatcher.arrived_load

    @property
    def ongoing(self) -> int:
        """Requests queued or being served."""
        return self._world.inside

    @property
    def oldest_wait(self) -> float:
        """Longest wait of a request, in the queue or on a worker, seconds."""
        world, state = self._world, self._world.dispatcher.state
        firsts = [each.machine.line[0][0] for each in state.members.values() if each.machine.line]
        if state.queue.oldest is not None:
            firsts.append(state.queue.oldest)
        return world.now - min((world.trace.times[each] for each in firsts), default=world.now)

    @property
    def busy(self) -> int:
        """Workers that serve a request."""
        return sum(1 for machine in self._world.machines.values() if machine.running)

    @property
    def ready(self) -> int:
        """Workers that can serve."""
        return self._world.hot

    @property
    def slots(self) -> int:
        """Requests that a worker serves at a time."""
        return self._world.settings.slots


class Rule(Protocol):
    """A peer's rule."""

    name: str
    period: float
    """Seconds between two evaluations."""

    def want(self, signals: Signals, current: int) -> int:
        """Replicas wanted now; `current` is what was wanted last."""
        ...


class Peer:
    """A peer's rule with its operations."""

    def __init__(
        self,
        rule: Rule,
        *,
        cold_seconds: float = COLD_SECONDS,
        minimum: int = 0,
        maximum: int = 512,
        initial: int = 1,
    ) -> None:
        self.name = rule.name
        self._rule = rule
        self._cold_seconds = cold_seconds
        self._cold_since: dict[int, float] = {}
        self._minimum, self._maximum = minimum, maximum
        self.wanted = initial
        self._machines: dict[int, Machine] = {}
        self._asked: dict[int, float] = {}
        """Launch time of each booting machine."""
        self._draining: set[int] = set()
        self._stopping: set[int] = set()
        self._creating = 0
        self._launches = 0
        self._offers: deque[Offer] = deque()
        self._offers_at = -1e9
        self._searching = False
        self._world: World
        self._signals: Signals

    def begin(self, world: "World") -> None:
        """The endpoint exists."""
        self._world = world
        self._signals = Signals(world)
        self._tick(None)

    def on_metrics(self, batches: Sequence[MetricsBatch]) -> None:
        """Ignored: peers poll."""

    def _tick(self, _: Any) -> None:
        world = self._world
        if world.ended and not world.inside:
            return
        wanted = self._rule.want(self._signals, self.wanted)
        self.wanted = max(self._minimum, min(self._maximum, wanted))
        self._act()
        world.after(self._rule.period, self._tick)

    def _act(self) -> None:
        _world, now = self._world, self._world.now
        for machine in list(self._machines.values()):
            if machine.stage is Stage.GONE:
                self._forget(machine)
            elif machine.id in self._asked:
                self._watch(machine, now)
        hot = [m for m in self._machines.values() if self._counts(m)]
        have = len(hot) + self._creating
        if have < self.wanted:
            self._grow(self.wanted - have)
        elif have > self.wanted:
            self._shrink(hot, have - self.wanted)
        for machine in [m for m in self._machines.values() if m.id in self._draining]:
            if not machine.held and machine.stage is Stage.READY:
                self._draining.discard(machine.id)
                self._stopping.add(machine.id)
                self._put_away(machine)
        for machine in self._cold():
            since = self._cold_since.setdefault(machine.id, now)
            if now - since > self._cold_seconds and machine.id not in self._asked:
                self._stopping.add(machine.id)
                self._destroy(machine)

    def _put_away(self, machine: Machine) -> None:
        """Stops the machine if the market keeps it and the model is on its disk, else releases it."""
        if machine.loaded_once and self._world.settings.cold_pool:
            self._cold_since[machine.id] = self._world.now
            self._world.change("stop", machine, lambda _: self._stopping.discard(machine.id))
        else:
            self._destroy(machine)

    def _destroy(self, machine: Machine) -> None:
        self._world.change("destroy", machine, lambda _: self._forget(machine))

    def _cold(self) -> list[Machine]:
        return [m for m in self._machines.values() if m.stage is Stage.STOPPED and m.id not in self._stopping]

    def _counts(self, machine: Machine) -> bool:
        if machine.id in self._stopping or machine.id in self._draining:
            return False
        return machine.stage not in (Stage.STOPPED, Stage.STOPPING, Stage.GONE) or machine.id in self._asked

    def _watch(self, machine: Machine, now: float) -> None:
        if machine.stage is Stage.READY:
            del self._asked[machine.id]
            return
        limit = START_TIMEOUT_SECONDS if machine.loaded_once else BOOT_TIMEOUT_SECONDS
        if now - self._asked[machine.id] > limit and machine.id not in self._stopping:
            self._stopping.add(machine.id)
            self._destroy(machine)

    def _grow(self, missing: int) -> None:
        world = self._world
        for machine in [m for m in self._machines.values() if m.id in self._draining][:missing]:
            self._draining.discard(machine.id)
            world.dispatcher.drain(machine, False)
            missing -= 1
        for machine in [m for m in self._cold() if m.id not in self._asked][:missing]:
            self._asked[machine.id] = world.now
            world.change("start", machine, lambda _: None)
            missing -= 1
        if missing <= 0:
            return
        if world.now - self._offers_at > OFFERS_SECONDS or not self._offers:
            if not self._searching:
                self._searching = True
                world.search(self._found)
            return
        while missing > 0 and self._offers:
            offer = self._offers.popleft()
            self._creating += 1
            self._launches += 1
            world.create(f"{self._launches:012x}", offer.id, self._created)
            missing -= 1

    def _found(self, offers: tuple[Offer, ...]) -> None:
        self._searching = False
        best = reference(self._world.settings)
        mine = [offer for offer in offers if offer.gpu_name == best.name]
        self._offers = deque(sorted(mine, key=lambda offer: (offer.dph_total, offer.id)))
        self._offers_at = self._world.now
        if mine:
            self._act()

    def _created(self, machine: Machine | None) -> None:
        self._creating -= 1
        if machine is not None:
            self._machines[machine.id] = machine
            self._asked[machine.id] = self._world.now

    def _shrink(self, hot: list[Machine], surplus: int) -> None:
        # booting machines first, because they hold no request; then those with the fewest requests
        order = sorted(hot, key=lambda m: (m.stage is Stage.READY, len(m.held), -m.price, m.id))
        for machine in order[:surplus]:
            if machine.stage is Stage.READY:
                self._draining.add(machine.id)
                self._world.dispatcher.drain(machine, True)
            elif machine.id not in self._stopping:
                self._asked.pop(machine.id, None)
                self._stopping.add(machine.id)
                self._put_away(machine)

    def _forget(self, machine: Machine) -> None:
        self._machines.pop(machine.id, None)
        self._asked.pop(machine.id, None)
        self._draining.discard(machine.id)
        self._stopping.discard(machine.id)
        self._cold_since.pop(machine.id, None)
