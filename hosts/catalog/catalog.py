"""Slots and offers: each free slot of each machine kind is one offer."""

import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from hosts.catalog.gpus import Gpu
from hosts.catalog.record import HOURS_PER_MONTH, InstanceRecord
from hosts.settings import HostMarketSettings, MachineSettings

log = structlog.get_logger(__name__)

HOST_ID = 1
PROMISED_SECONDS = 365 * 86_400.0
_GROUPS = (1, 2, 4, 8, 16, 32, 64)
"""Sizes in which equal GPUs are offered: the numbers of GPUs that tensor parallelism uses."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One rentable unit of a machine kind."""

    offer_id: int
    machine: MachineSettings
    index: int
    gpus: tuple[Gpu, ...]
    """Empty: a CPU slot."""

    @property
    def name(self) -> str:
        """E.g. `1x CPU small#2`."""
        return f"{self.machine.kind}#{self.index}"

    @property
    def gpu_ram_mb(self) -> float:
        """Memory per GPU for this slot."""
        if self.machine.gpu_ram_mb is not None:
            return self.machine.gpu_ram_mb
        return min((gpu.ram_mb for gpu in self.gpus), default=0.0) / self.machine.slots_per_gpu


class Catalog:
    """All slots of this machine by offer id. Ids depend only on name and slot, so they are stable across restarts."""

    def __init__(self, settings: HostMarketSettings, gpus: list[Gpu]) -> None:
        self.slots: dict[int, Slot] = {}
        self._gpus = {gpu.index: gpu for gpu in gpus}
        for machine in [*settings.machines, *_unclaimed(settings, gpus)]:
            if missing := sorted(set(machine.gpu_indices) - self._gpus.keys()):
                log.warning("gpu_not_found", machine=machine.name, gpu_indices=missing)
                continue
            name = machine.kind if machine.num_gpus > 1 else machine.name
            for index in range(machine.count):
                offer_id = self._free_id(f"{name}/{index}")
                self.slots[offer_id] = Slot(offer_id, machine, index, self._found(machine.gpus_of(index)))

    def _free_id(self, name: str) -> int:
        offer_id = 1_000_000 + zlib.crc32(name.encode()) % 1_000_000_000
        while offer_id in self.slots:
            offer_id += 1
        return offer_id

    def _found(self, indices: Iterable[int]) -> tuple[Gpu, ...]:
        return tuple(self._gpus[index] for index in indices if index in self._gpus)

    def slot_of(self, record: InstanceRecord) -> Slot:
        """The instance's slot, with the GPUs that it was rented with, also if the settings have changed since."""
        slot = self.slots.get(record.offer_id)
        if slot is not None and record.gpu_indices in ((), tuple(gpu.index for gpu in slot.gpus)):
            return slot
        machine = (
            slot.machine
            if slot is not None
            else MachineSettings(
                name=record.machine, dollars_per_hour=record.dollars_per_hour, num_gpus=record.num_gpus
            )
        )
        return Slot(record.offer_id, machine, record.slot, self._found(record.gpu_indices))

    def free(self, rented: Iterable[InstanceRecord]) -> list[Slot]:
        """The slots that can be rented: no instance has them, or a GPU of theirs under other terms."""
        rented = list(rented)
        offers = {record.offer_id for record in rented}
        users: dict[int, list[str]] = {}
        for record in rented:
            for index in record.gpu_indices:
                users.setdefault(index, []).append(record.kind)

        def has_room(slot: Slot, gpu: Gpu) -> bool:
            kinds = users.get(gpu.index, [])
            return len(kinds) < slot.machine.slots_per_gpu and set(kinds) <= {slot.machine.kind}

        return [
            slot
            for slot in self.slots.values()
            if slot.offer_id not in offers and all(has_room(slot, gpu) for gpu in slot.gpus)
        ]

    def offer(self, slot: Slot, *, bid: bool, disk_gb: float, rented: bool = False) -> dict[str, Any]:
        """The slot as a row of the API. `dph_total` includes a disk of `disk_gb`."""
        machine = slot.machine
        base = (machine.min_bid_dollars_per_hour or 0.0) if bid else machine.dollars_per_hour
        total = base + storage_dollars_per_hour(machine, disk_gb)
        return {
            "id": slot.offer_id,
            "ask_contract_id": slot.offer_id,
            "machine_id": slot.offer_id,
            "host_id": HOST_ID,
            "gpu_name": machine.name,
            "num_gpus": machine.num_gpus,
            "gpu_frac": machine.num_gpus / len(self._gpus) if slot.gpus else 1.0,
            "gpu_ram": slot.gpu_ram_mb,
            "gpu_total_ram": slot.gpu_ram_mb * machine.num_gpus,
            "gpu_arch": "nvidia" if slot.gpus else "cpu",
            "driver_version": slot.gpus[0].driver if slot.gpus else None,
            "cpu_cores": os.cpu_count() or 1,
            "cpu_cores_effective": (machine.cpu_percent or 100.0 * (os.cpu_count() or 1)) / 100,
            "cpu_ram": _memory_mb(),
            "disk_space": machine.disk_gb,
            "dph_base": base,
            "dph_total": total,
            "min_bid": machine.min_bid_dollars_per_hour or machine.dollars_per_hour,
            "storage_cost": machine.storage_dollars_per_gb_month,
            "dlperf": machine.dlperf,
            "dlperf_per_dphtotal": machine.dlperf / total if total else 0.0,
            "reliability": machine.reliability,
            "reliability2": machine.reliability,
            "inet_up": 1000.0,
            "inet_down": 1000.0,
            "inet_up_cost": 0.0,
            "inet_down_cost": 0.0,
            "direct_port_count": 9,
            "geolocation": machine.geolocation,
            "duration": PROMISED_SECONDS,
            "end_date": time.time() + PROMISED_SECONDS,
            "verification": "verified",
            "verified": True,
            "external": False,
            "rentable": not rented,
            "rented": rented,
            "static_ip": True,
            "is_bid": bid,
        }


def storage_dollars_per_hour(machine: MachineSettings, disk_gb: float) -> float:
    """The price of a disk, billed also while the instance is stopped."""
    return machine.storage_dollars_per_gb_month * disk_gb / HOURS_PER_MONTH


def _unclaimed(settings: HostMarketSettings, gpus: list[Gpu]) -> list[MachineSettings]:
    """GPUs that no configured machine kind names: equal ones as kinds of 1, 2, 4 … GPUs."""
    if not settings.gpus.enabled:
        return []
    claimed = {index for machine in settings.machines for index in machine.gpu_indices}
    equal: dict[tuple[str, float], list[int]] = {}
    for gpu in gpus:
        if gpu.index not in claimed:
            equal.setdefault((gpu.name, gpu.ram_mb), []).append(gpu.index)
    taken = {machine.name for machine in settings.machines}
    terms = settings.gpus
    found = []
    for (gpu_name, _), indices in equal.items():
        name = gpu_name if gpu_name not in taken else f"{gpu_name} {indices[0]}"
        taken.add(name)
        found += [
            MachineSettings(
                name=name,
                count=len(indices) // size,
                dollars_per_hour=terms.dollars_per_hour * size,
                storage_dollars_per_gb_month=terms.storage_dollars_per_gb_month,
                num_gpus=size,
                gpu_indices=tuple(indices[: len(indices) // size * size]),
                dlperf=terms.dlperf * size,
                reliability=terms.reliability,
                disk_gb=terms.disk_gb,
            )
            for size in _GROUPS
            if size <= len(indices)
        ]
    return found


def _memory_mb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
