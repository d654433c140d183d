"""The collaborators that all instances of a marketplace share."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hosts.agent.cpu import CpuShares
from hosts.agent.volumes import Volumes
from hosts.catalog.ports import Ports
from hosts.catalog.store import Store
from hosts.faults import Faults
from hosts.settings import HostMarketSettings


@dataclass(frozen=True, slots=True)
class SharedResources:
    """The collaborators that all instances of a marketplace share."""

    settings: HostMarketSettings
    store: Store
    cpu: CpuShares
    ports: Ports
    faults: Faults
    volumes: Volumes
    now: Callable[[], float] = time.time

    def home(self, instance_id: int) -> Path:
        """The folder of an instance's disk, log and image."""
        return self.store.dir / "instances" / str(instance_id)
