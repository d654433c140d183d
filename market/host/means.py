"""What every instance of a marketplace shares."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from market.host.cpu import CpuShares
from market.host.faults import Faults
from market.host.ports import Ports
from market.host.settings import HostMarketSettings
from market.host.store import Store


@dataclass(frozen=True, slots=True)
class Means:
    """What every instance of this marketplace shares."""

    settings: HostMarketSettings
    store: Store
    cpu: CpuShares
    ports: Ports
    faults: Faults
    now: Callable[[], float] = time.time

    def home(self, instance_id: int) -> Path:
        """Where an instance's disk, log and image lie."""
        return self.store.dir / "instances" / str(instance_id)
