"""Builds the environment and the command of an instance, as on a rented machine. It inherits no variables."""

import os
import sys
from pathlib import Path

from hosts.catalog.catalog import Slot
from hosts.catalog.record import InstanceRecord
from hosts.settings import PORTS_PER_INSTANCE, HostMarketSettings
from market.query.docker_flags import published_ports

WORKER_PORT = 3000
"""The port that templates publish for the worker."""
FIRST_SPARE = 3
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def external_ports(record: InstanceRecord) -> dict[int, int]:
    """Maps each container port to the port that clients connect to.

    All instances share one network, so the worker listens on the first port of its block. Further published ports use
    the spare ports of the block until none is left.
    """
    base = record.port_base
    ports = {base: base, WORKER_PORT: base}
    spare = iter(range(base + FIRST_SPARE, base + PORTS_PER_INSTANCE - 1))
    for port, _ in published_ports(record.env):
        if port not in ports and (outside := next(spare, None)) is not None:
            ports[port] = outside
    return ports


def environment(
    record: InstanceRecord, slot: Slot, settings: HostMarketSettings, disk: Path
) -> dict[str, str]:
    """The variables of the instance's processes, in rising priority: system, settings, template and launch, host."""
    base = record.port_base
    system = {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "HOME": str(disk),
        "WORKSPACE": str(disk),
        "TMPDIR": str(disk / "tmp"),
        "LANG": "C.UTF-8",
    }
    # Keys such as `-p 3000:3000` are docker flags, not variables.
    variables = {name: value for name, value in record.env.items() if not name.startswith("-")}
    host = {
        "CONTAINER_ID": str(record.id),
        "CONTAINER_API_KEY": record.api_key,
        "VAST_CONTAINERLABEL": f"C.{record.id}",
        "PUBLIC_IPADDR": settings.public_ip,
        "GPU_COUNT": str(slot.machine.num_gpus),
        "WORKER_PORT": str(base),
        "MODEL_PORT": str(base + 2),
        **{f"VAST_TCP_PORT_{inside}": str(outside) for inside, outside in external_ports(record).items()},
    }
    if settings.listen_host is not None:
        host["WORKER_HOST"] = settings.listen_host
    if slot.gpus:
        gpus = ",".join(str(gpu.index) for gpu in slot.gpus)
        host["CUDA_VISIBLE_DEVICES"] = host["NVIDIA_VISIBLE_DEVICES"] = gpus
        # NVML counts by bus address; CUDA counts the fastest GPU first unless it is told otherwise.
        host["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return {**system, **settings.env, **variables, **host}


def command(record: InstanceRecord, home: Path) -> list[str]:
    """The argument list to run: the start command with bash and the args, or the args alone."""
    if not record.onstart:
        return list(record.args)
    script = home / "onstart.sh"
    descriptor = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
    with os.fdopen(descriptor, "w") as file:
        file.write(record.onstart + "\n")
    return ["bash", str(script), *record.args]
