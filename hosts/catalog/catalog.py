"""Slots and offers: each free slot of each machine kind is one offer."""

import os
import time
import zlib
from dataclasses import dataclass
from typing import Any

import structlog

from hosts.catalog.gpus import Gpu
from hosts.catalog.record import HOURS_PER_MONTH
from hosts.settings import HostMarketSettings, MachineSettings

log = structlog.get_logger(__name__)

HOST_ID = 1
PROMISED_SECONDS = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One rentable unit of a machine kind."""

    offer_id: int
    machine: MachineSettings
    index: int
    gpu: Gpu | None

    @property
    def name(self) -> str:
        """E.g. `CPU small#2`."""
        return f"{self.machine.name}#{self.index}"


class Catalog:
    """All slots of this machine by offer id. Ids depend only on name and slot, so they are stable across restarts."""

    def __init__(self, settings: HostMarketSettings, gpus: list[Gpu]) -> None:
        self.slots: dict[int, Slot] = {}
        by_index = {gpu.index: gpu for gpu in gpus}
        for machine in [*settings.machines, *_unclaimed(settings, gpus)]:
            if machine.gpu_index is not None and machine.gpu_index not in by_index:
                log.warning("gpu_not_found", machine=machine.name, gpu_index=machine.gpu_index)
                continue
            gpu = by_index[machine.gpu_index] if machine.gpu_index is not None else None
            for index in range(machine.count):
                offer_id = self._free_id(f"{machine.name}/{index}")
                self.slots[offer_id] = Slot(offer_id, machine, index, gpu)

    def _free_id(self, name: str) -> int:
        offer_id = 1_000_000 + zlib.crc32(name.encode()) % 1_000_000_000
        while offer_id in self.slots:
            offer_id += 1
        return offer_id

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
            "num_gpus": 1,
            "gpu_frac": 1.0,
            "gpu_ram": machine.gpu_ram_mb,
            "gpu_total_ram": machine.gpu_ram_mb,
            "gpu_arch": "nvidia" if slot.gpu else "cpu",
            "driver_version": slot.gpu.driver if slot.gpu else None,
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
    """GPUs that no configured machine kind names."""
    if not settings.gpus.enabled:
        return []
    claimed = {machine.gpu_index for machine in settings.machines}
    taken = {machine.name for machine in settings.machines}
    terms = settings.gpus
    found = []
    for gpu in gpus:
        if gpu.index in claimed:
            continue
        name = gpu.name if gpu.name not in taken else f"{gpu.name} {gpu.index}"
        taken.add(name)
        found.append(
            MachineSettings(
                name=name,
                count=1,
                dollars_per_hour=terms.dollars_per_hour,
                storage_dollars_per_gb_month=terms.storage_dollars_per_gb_month,
                gpu_ram_mb=gpu.ram_mb,
                gpu_index=gpu.index,
                dlperf=terms.dlperf,
                reliability=terms.reliability,
                disk_gb=terms.disk_gb,
            )
        )
    return found


def _memory_mb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
