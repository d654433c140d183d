"""The rented machines of the simulated world, and its clock: operations, boots, faults and bills.

Everything is an event (time, number, function, argument) on one heap, and every draw comes from a stream with a seed,
so the same seed gives the same result to the bit.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from simulation.machine import BILLED, Bill, Machine, Stage
from simulation.market import Stock
from simulation.settings import MachineKind, WorldSettings


class SimulatedFleet(ABC):
    """Machines, from the create call to the release. Times are seconds from the start of the trace."""

    def __init__(self, settings: WorldSettings, seed: int) -> None:
        self.settings = settings
        self.now = 0.0
        self.stock = Stock(settings, seed)
        self.bill = Bill()
        self.machines: dict[int, Machine] = {}
        self.busy_seconds_of_the_gone = 0.0
        self.counts = dict.fromkeys(
            ("creates", "starts", "stops", "destroys", "failures", "lost_requests"), 0
        )
        self.ended = False
        self.hot = 0
        """Ready machines, including draining ones."""
        self.inside = 0
        """Requests waiting or being served."""
        self.over_hours = 0.0
        self.under_hours = 0.0
        self._area_at = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._next_machine = 0

    @abstractmethod
    def _joined(self, machine: Machine) -> None:
        """The machine became ready."""

    @abstractmethod
    def _left(self, machine: Machine, lost: list[int]) -> None:
        """The machine was ready and is not; these requests were interrupted."""

    # -- time

    def at(self, when: float, what: Callable[[Any], None], argument: Any = None) -> None:
        """Schedules a call at a time."""
        self._number += 1
        heapq.heappush(self._events, (max(self.now, when), self._number, what, argument))

    def after(self, seconds: float, what: Callable[[Any], None], argument: Any = None) -> None:
        """Schedules a call after a delay."""
        self.at(self.now + seconds, what, argument)

    def at_stage(self, when: float, what: Callable[[Machine], None], machine: Machine) -> None:
        """Schedules a call that is dropped if the machine's stage or service changes before."""
        self.at(when, self._at_stage, (machine, machine.epoch, what))

    def _at_stage(self, asked: tuple[Machine, int, Callable[[Machine], None]]) -> None:
        machine, epoch, what = asked
        if machine.epoch == epoch:
            what(machine)

    @property
    def busy_seconds(self) -> float:
        """Total service time of all machines, seconds."""
        alive = 0.0
        for machine in self.machines.values():
            alive += machine.busy_seconds
            if machine.running:
                alive += self.now - machine.virtual_at
        return self.busy_seconds_of_the_gone + alive

    def measure_areas(self) -> None:
        """Accounts for idle hot slots and for requests without a worker since the last change."""
        hours = (self.now - self._area_at) / 3600.0
        self._area_at = self.now
        gap = self.hot * self.settings.slots - self.inside
        if gap > 0:
            self.over_hours += gap * hours / self.settings.slots
        else:
            self.under_hours -= gap * hours / self.settings.slots

    def bill_all(self) -> None:
        """Accounts for the cost of every machine up to now."""
        for machine in self.machines.values():
            machine.bill(self.now)

    # -- operations of a fleet controller; every call returns later, through `done`

    def search(self, done: Callable[[Any], None]) -> None:
        """Offers, `done(tuple[Offer, ...])`."""
        self.after(self.settings.search_seconds, lambda _: done(self.stock.search(self.now)))

    def create(self, launch_id: str, offer_id: int, done: Callable[[Machine | None], None]) -> None:
        """Rent: `done(machine)`, or `done(None)` if it was rented by another customer."""
        self.after(self.settings.operation_seconds, lambda _: self._created(launch_id, offer_id, done))

    def change(self, operation: str, machine: Machine, done: Callable[[bool], None]) -> None:
        """Start, stop, reboot or destroy a machine: `done(False)` if it is gone.

        Start and reboot are done when the market accepted, stop and destroy when the machine has reached the state.
        """
        call = {
            "start": self._started,
            "stop": self._stopping,
            "reboot": self._rebooted,
            "destroy": self._destroyed,
        }[operation]
        self.after(self.settings.operation_seconds, lambda _: call(machine, done))

    # -- market events

    def _created(self, launch_id: str, offer_id: int, done: Callable[[Machine | None], None]) -> None:
        stocked = self.stock.rent(offer_id, self.now)
        if stocked is None:
            done(None)
            return
        self._next_machine += 1
        price = stocked.offer.dph_total
        machine = Machine(
            id=self._next_machine,
            launch_id=launch_id,
            offer_id=offer_id,
            machine_id=stocked.offer.machine_id,
            kind=stocked.offer.kind,
            perf=stocked.perf,
            price=price,
            storage_price=price * self.settings.storage_share,
            speeds=self.settings.speeds,
            account=self.bill,
            now=self.now,
        )
        self.machines[machine.id] = machine
        self.counts["creates"] += 1
        self.at_stage(self.now + self.stock.between(*self.settings.create_seconds), self._pulls, machine)
        done(machine)

    def _pulls(self, machine: Machine) -> None:
        dud = self.stock.happens(self.settings.never_loads)
        seconds = self.stock.seconds(self.settings.loading)
        machine.become(Stage.DUD if dud else Stage.LOADING, self.now)
        if dud:
            self.counts["failures"] += 1
        else:
            self.at_stage(self.now + seconds, self._ready, machine)

    def _started(self, machine: Machine, done: Callable[[bool], None]) -> None:
        if machine.stage is not Stage.STOPPED:
            done(machine.stage is not Stage.GONE)
            return
        stuck = self.stock.happens(self.settings.never_restarts) or self._kind(machine).is_taken(self.now)
        seconds = self.stock.seconds(self.settings.start if machine.loaded_once else self.settings.loading)
        self.counts["starts"] += 1
        machine.become(Stage.STUCK if stuck else Stage.STARTING, self.now)
        if stuck:
            self.counts["failures"] += 1
        else:
            self.at_stage(self.now + seconds, self._ready, machine)
        done(True)

    def _ready(self, machine: Machine) -> None:
        machine.become(Stage.READY, self.now)
        machine.loaded_once = True
        machine.virtual_at = self.now
        self.measure_areas()
        self.hot += 1
        own, ready_since = self._kind(machine).outbid_per_hour, self.now
        rate = self.settings.outbid_per_hour if own is None else own
        machine.ready_since = ready_since
        self.after(self.stock.wait(rate), lambda _: self._outbid(machine, ready_since))
        self._joined(machine)

    def _kind(self, machine: Machine) -> MachineKind:
        return self.stock.machines[machine.offer_id].kind

    def begin_outbids(self) -> None:
        """Schedules the times in which others bid more for a whole kind."""
        for kind in self.settings.kinds:
            for begin, _ in kind.taken:
                self.at(begin, self._take_all, kind)

    def _take_all(self, kind: MachineKind) -> None:
        for machine in list(self.machines.values()):
            if self._kind(machine) is kind and machine.stage in BILLED:
                self.counts["failures"] += 1
                self._leave_service(machine)
                self._gone(machine)

    def _outbid(self, machine: Machine, ready_since: float) -> None:
        if machine.stage is Stage.READY and machine.ready_since == ready_since:
            self.counts["failures"] += 1
            self._leave_service(machine)
            self._gone(machine)

    def _stopping(self, machine: Machine, done: Callable[[bool], None]) -> None:
        if machine.stage is Stage.GONE:
            done(False)
            return
        self.counts["stops"] += 1
        self._leave_service(machine)
        if not self.settings.cold_pool:
            self._gone(machine)
            done(False)
            return
        machine.become(Stage.STOPPING, self.now)
        epoch = machine.epoch
        self.after(self.settings.stop_seconds, lambda _: self._stopped(machine, epoch, done))

    def _stopped(self, machine: Machine, epoch: int, done: Callable[[bool], None]) -> None:
        if machine.epoch == epoch:
            machine.become(Stage.STOPPED, self.now)
        done(machine.stage is not Stage.GONE)

    def _destroyed(self, machine: Machine, done: Callable[[bool], None]) -> None:
        if machine.stage is not Stage.GONE:
            self.counts["destroys"] += 1
            self._leave_service(machine)
            self._gone(machine)
        done(True)

    def _rebooted(self, machine: Machine, done: Callable[[bool], None]) -> None:
        if machine.stage is Stage.READY:
            self._leave_service(machine)
            machine.become(Stage.STARTING, self.now)
            self.at_stage(self.now + self.stock.seconds(self.settings.start), self._ready, machine)
        done(machine.stage is not Stage.GONE)

    def _leave_service(self, machine: Machine) -> None:
        if machine.stage is not Stage.READY:
            return
        self.measure_areas()
        self.hot -= 1
        lost = machine.drop_all(self.now)
        self.counts["lost_requests"] += len(lost)
        self._left(machine, lost)

    def _gone(self, machine: Machine) -> None:
        machine.become(Stage.GONE, self.now)
        self.busy_seconds_of_the_gone += machine.busy_seconds
        del self.machines[machine.id]
        self.stock.give_back(machine.offer_id)
