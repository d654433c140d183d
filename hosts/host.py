"""The marketplace of one machine: its offers, instances, templates and charges, without HTTP."""

import asyncio
import secrets
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from hosts.agent import proc
from hosts.agent.cpu import CpuShares
from hosts.agent.process import ProcessesLeft
from hosts.agent.resources import SharedResources
from hosts.agent.supervisor import InstanceSupervisor
from hosts.agent.volumes import Volumes, check_references
from hosts.api.requests import CreateBody, OfferSearch, TemplateChange
from hosts.catalog.catalog import Catalog, Slot, storage_dollars_per_hour
from hosts.catalog.gpus import Gpu, find_gpus
from hosts.catalog.ports import Ports
from hosts.catalog.record import InstanceRecord
from hosts.catalog.store import Store
from hosts.catalog.templates import Templates, env_of
from hosts.faults import Fault, FaultKind, Faults
from hosts.settings import HostMarketSettings
from market.query import matches, sorted_by
from stoker_wire.errors.problem import Problem

log = structlog.get_logger(__name__)


class UnsupportedMachine(RuntimeError):
    """The operating system lacks what the marketplace needs."""


class Host:
    """The marketplace's state and operations. Operations raise Problem.

    Raises:
        StateInUse: another marketplace uses the state directory.
        UnsupportedMachine: the system has no /proc.
    """

    def __init__(
        self,
        settings: HostMarketSettings,
        *,
        now: Callable[[], float] = time.time,
        gpus: Callable[[], list[Gpu]] = find_gpus,
    ) -> None:
        if not Path("/proc/self/stat").exists():
            raise UnsupportedMachine(
                f"the host marketplace needs /proc, which {sys.platform} does not have: use Linux"
            )
        self.settings = settings
        self.store = Store(settings.state_dir)
        self.faults = Faults()
        self.templates = Templates(self.store, settings.templates)
        self.catalog = Catalog(settings, gpus())
        self.resources = SharedResources(
            settings=settings,
            store=self.store,
            cpu=CpuShares(self.store.uid, settings.cpu_limit),
            ports=Ports(
                settings.port_min, settings.port_max, start=int(self.store.uid, 16), host=settings.listen_host
            ),
            faults=self.faults,
            volumes=Volumes(settings.state_dir / "volumes", bytes_max=settings.volumes_gb_max * 1e9),
            now=now,
        )
        self.instances: dict[int, InstanceSupervisor] = {}

    # start and stop

    async def open(self) -> None:
        """Recover the state of an earlier run: adopt running instances, start missing ones, remove orphans."""
        for record in self.store.records():
            if record.hold_reason in ("offline", "scheduling"):
                record.hold_reason = ""
            self.instances[record.id] = self._supervisor(record, self.catalog.slot_of(record))
        for supervisor in self.instances.values():
            supervisor.start()
        self._kill_orphans()
        self.resources.cpu.sweep(
            {one.record.id for one in self.instances.values() if one.process is not None}
        )
        homes = self.store.dir / "instances"
        homes.mkdir(mode=0o700, exist_ok=True)
        for home in homes.iterdir():
            if home.name not in {str(number) for number in self.instances}:
                await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
        log.info("host_market_open", slots=len(self.catalog.slots), instances=len(self.instances))

    async def close(self) -> None:
        """Stop the running instances or leave them running (`instances_on_exit`), and release everything else."""
        stop = self.settings.instances_on_exit == "stop"
        supervisors = list(self.instances.values())
        await asyncio.gather(*(one.shutdown() if stop else one.detach() for one in supervisors))
        self.resources.cpu.close()
        self.resources.ports.close()
        self.store.close()
        log.info("host_market_closed", instances=len(supervisors), stopped=stop)

    def _supervisor(self, record: InstanceRecord, slot: Slot) -> InstanceSupervisor:
        return InstanceSupervisor(
            record, slot, self.resources, on_removed=lambda number: self.instances.pop(number, None)
        )

    def _kill_orphans(self) -> None:
        """Kill processes of unknown instances: a marketplace that dies between start and save leaves them behind."""
        adopted = {one.tag for one in self.instances.values() if one.process is not None}
        orphans = {pid: tag for pid, tag in proc.tagged(f"{self.store.uid}:").items() if tag not in adopted}
        if orphans:
            log.warning("orphan_processes_killed", pids=sorted(orphans))
            proc.send(list(orphans), signal.SIGKILL)

    # offers

    def search(self, search: OfferSearch) -> list[dict[str, Any]]:
        """Free slots that match the filters, in the requested order."""
        if search.type == "reserved":
            return []
        bid = search.type in ("bid", "interruptible")
        offers = [
            self.catalog.offer(slot, bid=bid, disk_gb=search.allocated_storage)
            for slot in self._free_slots()
            if not (bid and slot.machine.min_bid_dollars_per_hour is None)
            and slot.machine.disk_gb >= search.allocated_storage
        ]
        found = [offer for offer in offers if matches(search.filters, offer)]
        return sorted_by(search.order, found)[: search.limit]

    def _free_slots(self) -> list[Slot]:
        return self.catalog.free(one.record for one in self.instances.values())

    # instances

    def create(self, offer_id: int, body: CreateBody) -> InstanceRecord:
        """Rent a slot. Raises Problem: 404 no_such_ask, 400 invalid_args or invalid_price."""
        slot = next((slot for slot in self._free_slots() if slot.offer_id == offer_id), None)
        facts = {"label": body.label, "machine": slot.machine.name if slot else ""}
        if slot is None or self.faults.take(FaultKind.OFFER_GONE, **facts):
            raise Problem(404, "no_such_ask", f"offer {offer_id} is not available: search again")
        record = self._record(slot, body)
        self.store.save(record)
        supervisor = self._supervisor(record, slot)
        self.instances[record.id] = supervisor
        supervisor.start()
        log.info("instance_created", instance_id=record.id, label=record.label, slot=slot.name)
        return record

    def _record(self, slot: Slot, body: CreateBody) -> InstanceRecord:
        template = self._template(body.template_hash_id, body.template_id)
        onstart = body.onstart or (template or {}).get("onstart")
        args = body.args_list() if body.args is not None or body.args_str else _args_of(template)
        if not onstart and not args:
            raise Problem(
                400,
                "invalid_args",
                "nothing to run: give a template, onstart or args",
            )
        machine = slot.machine
        disk_gb = body.disk or float((template or {}).get("recommended_disk_space") or 8.0)
        if disk_gb > machine.disk_gb:
            raise Problem(
                400, "invalid_args", f"disk {disk_gb:g} GB is more than the machine's {machine.disk_gb:g} GB"
            )
        price = machine.dollars_per_hour
        if body.price is not None:
            min_bid = machine.min_bid_dollars_per_hour
            if min_bid is None or body.price < min_bid:
                rule = "takes no bids" if min_bid is None else f"takes no bid under ${min_bid:g}/h"
                raise Problem(400, "invalid_price", f"offer {slot.offer_id} {rule}")
            price = body.price
        env = {**env_of(template), **body.env_map()}
        check_references(env)
        now = self.resources.now()
        record = InstanceRecord(
            id=0,
            offer_id=slot.offer_id,
            machine=machine.name,
            slot=slot.index,
            num_gpus=machine.num_gpus,
            gpu_indices=tuple(gpu.index for gpu in slot.gpus),
            created_at=now,
            start_date=now,
            label=body.label,
            template_id=(template or {}).get("id"),
            template_hash=(template or {}).get("hash_id"),
            image=body.image or (template or {}).get("image") or "host",
            env=env,
            onstart=onstart,
            args=tuple(args),
            runtype=body.runtype or (template or {}).get("runtype") or "args",
            disk_gb=disk_gb,
            is_bid=body.price is not None,
            dollars_per_hour=price,
            storage_dollars_per_hour=storage_dollars_per_hour(machine, disk_gb),
            api_key=secrets.token_hex(24),
            intended="stopped" if body.target_state == "stopped" else "running",
            actual="stopped" if body.target_state == "stopped" else None,
        )
        record.meter.storage_since = now
        record.id = self.store.next_id()
        return record

    def _template(self, hash_id: str | None, template_id: int | None) -> dict[str, Any] | None:
        if hash_id is None and template_id is None:
            return None
        template = self.templates.find(hash_id=hash_id, template_id=template_id)
        if template is None:
            named = f"hash {hash_id}" if hash_id is not None else f"id {template_id}"
            raise Problem(404, "no_such_template", f"there is no template with {named}: create it first")
        return template

    def instance(self, instance_id: int) -> InstanceSupervisor:
        """The instance. Raises Problem 404 no_such_instance."""
        if instance_id not in self.instances:
            raise Problem(404, "no_such_instance", f"there is no instance {instance_id}")
        return self.instances[instance_id]

    async def destroy(self, instance_id: int) -> None:
        """Kill the instance's processes and remove its disk; return when both are done.

        Raises:
            Problem: 404, no such instance; 500, some processes survived and the instance stays listed.
        """
        try:
            await self.instance(instance_id).destroy()
        except ProcessesLeft as left:
            raise Problem(500, "instance_not_ended", f"{left}; ask again") from left

    def update_template(self, instance_id: int, change: TemplateChange) -> None:
        """Change what the instance runs from its next start on; machine, disk and id stay the same."""
        record = self.instance(instance_id).record
        template = self._template(change.template_hash_id, change.template_id)
        env = change.env_map()
        check_references({**env_of(template), **env})
        if template is not None:
            # Variables given at creation (addresses, tokens) belong to the instance, not to the old template.
            old = self.templates.find(hash_id=record.template_hash, template_id=record.template_id)
            own = {name: value for name, value in record.env.items() if env_of(old).get(name) != value}
            record.env = {**env_of(template), **own}
            record.template_id, record.template_hash = template["id"], template["hash_id"]
            record.onstart = template.get("onstart")
            record.args = tuple(_args_of(template))
            record.image = template.get("image") or record.image
        record.env = {**record.env, **env}
        if change.onstart is not None:
            record.onstart = change.onstart
        if change.args is not None:
            record.args = tuple(change.args_list())
        if change.image is not None and change.image != record.image:
            record.image = change.image
            record.pulled = False
        self.store.save(record)

    def bid(self, instance_id: int, price: float) -> None:
        """Change the price of an interruptible instance. A bid under the minimum stops it."""
        supervisor = self.instance(instance_id)
        record, machine = supervisor.record, supervisor.slot.machine
        if not record.is_bid:
            raise Problem(400, "invalid_args", f"instance {instance_id} is on demand: it has no bid")
        # Bill the time up to now at the old price.
        record.meter.settle(self.resources.now(), record.dollars_per_hour)
        record.dollars_per_hour = price
        if price < (machine.min_bid_dollars_per_hour or 0):
            supervisor.set_intended("stopped", "outbid")
        self.store.save(record)

    # charges and fault injection

    def charges(self) -> dict[str, Any]:
        """The cost of each instance, destroyed ones included, and the total, in dollars."""
        now = self.resources.now()
        rows = self.store.charges() + [one.record.charge(now) for one in self.instances.values()]
        return {"instances": rows, "total_dollars": sum(row["dollars"] for row in rows), "at": now}

    def arm(self, fault: Fault) -> None:
        """Arm a fault. `outbid` and `host_dies` hit running instances at once, then later ones as often as remains."""
        self.faults.arm(fault)
        if fault.fault not in (FaultKind.OUTBID, FaultKind.HOST_DIES):
            return
        for one in list(self.instances.values()):
            record = one.record
            facts = {"label": record.label, "machine": record.machine, "instance_id": record.id}
            if record.actual != "running" or record.intended != "running":
                continue
            if struck := self.faults.take(fault.fault, **facts):
                if fault.fault is FaultKind.HOST_DIES:
                    one.take_offline(struck.seconds)
                else:
                    one.set_intended("stopped", "outbid")

    def clear_faults(self) -> None:
        """Disarm all faults; offline machines come back and waiting starts continue."""
        self.faults.clear()
        for one in self.instances.values():
            one.bring_online()


def _args_of(template: dict[str, Any] | None) -> list[str]:
    text = (template or {}).get("args_str") or ""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Problem(400, "invalid_args", f"the template's args_str cannot be read: {error}") from None
