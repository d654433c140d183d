"""A marketplace with seeded faults and an exact record: the real cost of each instance, and every call.

It implements the market port. Its machines change by themselves in virtual time.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from market.interface import InstanceGone, Launch, OfferGone, OfferQuery, RateLimited, Refused, Unavailable
from stoker_wire.market import Charge, Instance, Offer, Template
from tests.seeded.machine import GPU_BILLED, Machine
from tests.seeded.market_faults import MarketFaults, Pace
from tests.seeded.temporal.virtual_time import BEGINNING

HOURS_PER_MONTH = 730.0


def wide(offer_id: int) -> bool:
    """Machines with several equal slots: an offer can be rented again, so the market does not prevent a second
    instance."""
    return offer_id % 2 == 0


class SeededMarket:
    """`Market` with seeded faults."""

    def __init__(
        self,
        chance: random.Random,
        offers: list[Offer],
        templates: list[Template],
        *,
        pace: Pace,
        troubles: MarketFaults,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.pace = pace
        self.troubles = troubles
        self.offers = {offer.id: offer for offer in offers}
        self.templates = {template.hash_id: template for template in templates}
        self.machines: dict[int, Machine] = {}
        """Every instance, including destroyed ones."""
        self.down = False
        self.faults: Counter[str] = Counter()
        self.on_asked: Callable[[str, Machine], None] = lambda what, machine: None
        """Called just before an operation is carried out."""
        self.on_status: Callable[[Machine], None] = lambda machine: None
        self.rented_late: set[str] = set()
        """Labels of creates that were carried out after the caller had given up."""
        self._chance = chance
        self._next_id = 1000
        self._away: set[int] = set()

    # read by the world

    def now(self) -> float:
        return BEGINNING + self._loop.time()

    def living(self) -> list[Machine]:
        """Instances that cost money now."""
        return [machine for machine in self.machines.values() if machine.gone_at is None]

    def dollars(self) -> float:
        """Total cost so far."""
        now = self.now()
        return sum(machine.dollars(now) for machine in self.machines.values())

    async def rivals(self) -> None:
        """Other customers, until cancelled."""
        while True:
            await asyncio.sleep(15)
            for offer_id in list(self.offers):
                if offer_id in self._away:
                    if self._chance.random() < 0.1:
                        self._away.discard(offer_id)
                elif self._chance.random() < self.troubles.taken / 4:
                    self._away.add(offer_id)

    # the port

    async def search(self, query: OfferQuery) -> list[Offer]:
        def work() -> list[Offer]:
            rented = {machine.offer.id for machine in self.living() if not wide(machine.offer.id)}
            free = [o for o in self.offers.values() if o.id not in rented and o.id not in self._away]
            free.sort(key=lambda offer: (-(offer.dlperf or 0.0) / offer.dph_total, offer.id))
            return free[: query.limit]

        return await self._call("search", work)

    async def create(self, offer_id: int, launch: Launch) -> int:
        def work() -> int:
            if self._chance.random() < self.troubles.refused:
                raise Refused("the account may not rent this machine", code="forbidden")
            rented = any(m.offer.id == offer_id for m in self.living()) and not wide(offer_id)
            taken = offer_id in self._away or rented
            if offer_id not in self.offers or taken:
                raise OfferGone(f"offer {offer_id} is not available any more")
            return self._rent(self.offers[offer_id], launch).id

        if self._chance.random() < self.troubles.late:
            self.faults["create carried out late"] += 1
            asyncio.get_running_loop().call_later(
                self._chance.uniform(31, 70), self._rent_late, offer_id, launch
            )
            await asyncio.sleep(30)
            raise Unavailable("no answer within 30 s")
        return await self._call("create", work)

    async def start(self, instance_id: int) -> None:
        await self._order("start", instance_id, self._start)

    async def stop(self, instance_id: int) -> None:
        await self._order("stop", instance_id, self._stop)

    async def reboot(self, instance_id: int) -> None:
        await self._order("reboot", instance_id, self._reboot)

    async def destroy(self, instance_id: int) -> None:
        def work() -> None:
            machine = self.machines.get(instance_id)
            if machine is not None and machine.gone_at is None:
                self.on_asked("destroy", machine)
                self._later(machine, self.pace.destroy_seconds, lambda: self._leave(machine, "destroyed"))

        await self._call("destroy", work)

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        def apply(machine: Machine) -> None:
            machine.launch = launch

        await self._order("update", instance_id, apply)

    async def relabel(self, instance_id: int, label: str) -> None:
        def apply(machine: Machine) -> None:
            machine.launch = replace(machine.launch, label=label)

        await self._order("relabel", instance_id, apply)

    async def show(self, instance_id: int) -> Instance:
        def work() -> Instance:
            machine = self.machines.get(instance_id)
            seen = machine and machine.at(self.now() - self.pace.list_lag_seconds)
            if machine is None or (seen is None and machine.gone_at is not None):
                raise InstanceGone(f"there is no instance {instance_id}")
            return self._row(machine, *(seen or (machine.actual, machine.intended)))

        return await self._call("show", work)

    async def list(self, *, label_prefix: str = "") -> "list[Instance]":
        return await self._call("list", lambda: self._incomplete(self._rows(label_prefix)))

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """The lookup before a repeated create is exact: nothing else shows whether the first attempt rented."""

        def work() -> "list[Instance]":
            found = [row for row in self._rows("") if row.label in wanted]
            return self._incomplete(found) if len(wanted) > 1 else found

        wanted = set(labels)
        return await self._call("list", work)

    def _rows(self, label_prefix: str) -> "list[Instance]":
        moment = self.now() - self.pace.list_lag_seconds
        rows = []
        for machine in self.machines.values():
            seen = machine.at(moment)
            if seen is not None and (machine.shown_label or "").startswith(label_prefix):
                rows.append(self._row(machine, *seen))
        return rows

    def _incomplete(self, rows: "list[Instance]") -> "list[Instance]":
        """Some lists are empty or short, as after a lost page."""
        dice = self._chance.random()
        if dice < self.troubles.list_empty:
            self.faults["list empty"] += 1
            return []
        if dice < self.troubles.list_empty + self.troubles.list_short:
            self.faults["list short"] += 1
            return [row for row in rows if self._chance.random() < 0.4]
        return rows

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> "list[Charge]":
        def work() -> "list[Charge]":
            now = self.now()
            return [
                Charge(
                    instance_id=machine.id,
                    label=machine.label,
                    dollars=machine.dollars(now),
                    since=machine.created_at,
                    until=machine.gone_at if machine.gone_at is not None else now,
                    final=machine.gone_at is not None,
                )
                for machine in self.machines.values()
                if machine.label.startswith(label_prefix) and (machine.gone_at or now) >= since
            ]

        return await self._call("charges", work)

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        for template in self.templates.values():
            if template.hash_id == hash_id or template.id == id:
                return template
        raise Refused(f"there is no template {hash_id or id}", code="no_such_template")

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        return ""

    async def close(self) -> None:
        pass

    # faults of a call

    async def _call(self, name: str, work: Callable[[], Any]) -> Any:
        chance, troubles = self._chance, self.troubles
        await asyncio.sleep(chance.uniform(0.3, 2.0) * self.pace.call_seconds)
        if self.down:
            self.faults["outage"] += 1
            await asyncio.sleep(chance.choice([0.0, 10.0, 30.0]))
            raise Unavailable(f"{name}: the market answers 503")
        dice = chance.random()
        for kind in ("limited", "unavailable", "timeout", "lost", "slow"):
            dice -= getattr(troubles, kind)
            if dice < 0:
                self.faults[kind] += 1
                return await self._troubled(kind, name, work)
        return work()

    async def _troubled(self, kind: str, name: str, work: Callable[[], Any]) -> Any:
        chance = self._chance
        if kind == "limited":
            after = chance.choice([None, 1.0, 15.0, 400.0])
            raise RateLimited(f"{name}: the market answers 429", retry_after_s=after)
        if kind == "unavailable":
            raise Unavailable(f"{name}: the market answers {chance.choice([500, 502, 503])}")
        if kind == "timeout":
            await asyncio.sleep(30)
            raise Unavailable(f"{name}: no answer within 30 s")
        if kind == "slow":
            await asyncio.sleep(chance.uniform(5, 28))
            return work()
        work()
        await asyncio.sleep(chance.choice([0.0, 5.0, 30.0]))
        raise Unavailable(f"{name}: the answer was lost")

    async def _order(self, name: str, instance_id: int, apply: Callable[[Machine], None]) -> None:
        def work() -> None:
            machine = self.machines.get(instance_id)
            if machine is None or machine.gone_at is not None:
                raise InstanceGone(f"there is no instance {instance_id}")
            self.on_asked(name, machine)
            apply(machine)

        await self._call(name, work)

    # machines

    def _rent_late(self, offer_id: int, launch: Launch) -> None:
        if offer_id not in self._away and not any(m.offer.id == offer_id for m in self.living()):
            self.rented_late.add(launch.label)
            self._rent(self.offers[offer_id], launch)

    def _rent(self, offer: Offer, launch: Launch) -> Machine:
        self._next_id += 1
        storage = offer.storage_cost * launch.disk_gb / HOURS_PER_MONTH
        now = self.now()
        machine = Machine(self._next_id, offer, launch, now, storage)
        machine.meter.storage_since = now
        machine.story.append((now, None, "running"))
        self.machines[machine.id] = machine
        self.on_asked("create", machine)
        self._doom(machine)
        self._boot(machine)
        return machine

    def plant(self, offer: Offer, label: str) -> Machine:
        """An instance without an endpoint."""
        return self._rent(offer, Launch(label=label))

    def _doom(self, machine: Machine) -> None:
        """Draws the faults of a machine."""
        chance, troubles = self._chance, self.troubles
        dice = chance.random()
        for kind in (
            "never_loads",
            "crash_loops",
            "errors",
            "mute",
            "outbid",
            "dies",
            "offline",
            "stays_stopped",
            "touched",
            "relabelled",
        ):
            dice -= getattr(troubles, kind)
            if dice < 0:
                machine.trouble = kind
                self.faults[kind] += 1
                break
        later = asyncio.get_running_loop().call_later
        match machine.trouble:
            case "outbid":
                later(chance.uniform(20, 2400), self._outbid, machine)
            case "dies":
                later(chance.uniform(5, 2400), self._leave, machine, "died")
            case "offline":
                later(chance.uniform(60, 2400), self._offline, machine)
            case "touched":
                later(chance.uniform(200, 2400), self._touch, machine)
            case "relabelled":
                later(chance.uniform(300, 2400), self._relabel, machine)

    def _boot(self, machine: Machine) -> None:
        self._set(machine, "loading")
        if machine.trouble == "never_loads" and self._chance.random() < 0.5:
            return
        seconds = self._chance.uniform(0.5, 2.0) * self.pace.pull_seconds
        self._later(machine, seconds, lambda: self._runs(machine))

    def _runs(self, machine: Machine) -> None:
        machine.running_since = self.now()
        self._set(machine, "running")
        if machine.trouble == "crash_loops":
            self._later(machine, self._chance.uniform(2, 90), lambda: self._crashed(machine))

    def _crashed(self, machine: Machine) -> None:
        self._set(machine, "exited")
        self._later(machine, self._chance.uniform(2, 20), lambda: self._runs(machine))

    def _start(self, machine: Machine) -> None:
        machine.intended = "running"
        machine.turn += 1
        if machine.trouble == "stays_stopped":
            self._set(machine, machine.actual)
            return
        if machine.actual in GPU_BILLED:
            return
        self._later(machine, 1.0, lambda: self._set(machine, "loading"))
        seconds = 1.0 + self._chance.uniform(0.5, 2.0) * self.pace.start_seconds
        turn = machine.turn
        asyncio.get_running_loop().call_later(
            seconds, lambda: self._runs(machine) if machine.turn == turn and machine.gone_at is None else None
        )

    def _stop(self, machine: Machine) -> None:
        if self._chance.random() < self.troubles.stop_ignored:
            self.faults["stop ignored"] += 1
            return
        machine.intended = "stopped"
        machine.turn += 1
        self._set(machine, machine.actual)
        seconds = self._chance.uniform(0.5, 2.0) * self.pace.stop_seconds
        self._later(machine, seconds, lambda: self._set(machine, "stopped"))

    def _reboot(self, machine: Machine) -> None:
        machine.turn += 1
        machine.intended = "running"
        if machine.trouble in {"errors", "mute"} and self._chance.random() < 0.6:
            machine.trouble = ""
        self._set(machine, "rebooting")
        seconds = self._chance.uniform(0.5, 2.0) * self.pace.start_seconds
        self._later(machine, seconds, lambda: self._runs(machine))

    def _outbid(self, machine: Machine) -> None:
        if machine.gone_at is None and machine.actual in GPU_BILLED:
            machine.turn += 1
            machine.intended = "stopped"
            machine.trouble = self._chance.choice(["", "stays_stopped"])
            self._set(machine, self._chance.choice(["stopped", "exited"]))

    def _offline(self, machine: Machine) -> None:
        if machine.gone_at is None and machine.actual == "running":
            machine.turn += 1
            self._set(machine, "offline")
            self._later(machine, self._chance.uniform(30, 900), lambda: self._runs(machine))

    def _touch(self, machine: Machine) -> None:
        """An operator starts or stops it in the marketplace's console."""
        if machine.gone_at is None:
            self._stop(machine) if machine.intended == "running" else self._start(machine)

    def _relabel(self, machine: Machine) -> None:
        """An operator edits the label in the marketplace's console. Operations and bills use the instance's id."""
        if machine.gone_at is None and machine.label not in self.rented_late:
            machine.relabelled = True
            machine.edited_label = self._chance.choice([None, "do not touch", f"{machine.label}-edited"])

    def _leave(self, machine: Machine, why: str) -> None:
        if machine.gone_at is not None:
            return
        now = self.now()
        machine.turn += 1
        self._set(machine, None)
        machine.gone_at, machine.why_gone = now, why
        machine.meter.storage_until = now
        self.on_status(machine)

    def _set(self, machine: Machine, actual: str | None) -> None:
        if machine.gone_at is not None:
            return
        now = self.now()
        machine.actual = actual
        machine.story.append((now, actual, machine.intended))
        machine.meter.switch(actual in GPU_BILLED, now, machine.gpu_dollars_per_hour)
        self.on_status(machine)

    def _later(self, machine: Machine, seconds: float, then: Callable[[], None]) -> None:
        turn = machine.turn

        def due() -> None:
            if machine.turn == turn and machine.gone_at is None:
                then()

        asyncio.get_running_loop().call_later(seconds, due)

    def _row(self, machine: Machine, actual: str | None, intended: str) -> Instance:
        offer = machine.offer
        return Instance(
            id=machine.id,
            actual_status=actual,
            intended_status=intended,
            cur_state=intended,
            label=machine.shown_label,
            machine_id=offer.machine_id,
            host_id=offer.host_id,
            gpu_name=offer.gpu_name,
            num_gpus=offer.num_gpus,
            dph_total=offer.dph_total,
            dph_base=machine.gpu_dollars_per_hour,
            storage_total_cost=machine.storage_dollars_per_hour,
            start_date=machine.created_at,
            public_ipaddr=f"10.0.{machine.id // 250}.{machine.id % 250}" if actual == "running" else None,
            ports={"3000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "3000"}]} if actual == "running" else None,
        )
