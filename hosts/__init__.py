"""A marketplace of this machine: the Vast REST API over local processes.

Instances run as the user who runs the marketplace. Each has a CPU share and ports of its own, but they are not isolated
from each other: run only code that you trust.
"""

from hosts.api.app import create_app
from hosts.catalog.store import StateDamaged, StateInUse
from hosts.faults import Fault, FaultKind
from hosts.host import UnsupportedMachine
from hosts.serve import serve
from hosts.settings import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings

__all__ = [
    "Fault",
    "FaultKind",
    "GpuSettings",
    "HostMarketSettings",
    "MachineSettings",
    "StateDamaged",
    "StateInUse",
    "TemplateSettings",
    "UnsupportedMachine",
    "create_app",
    "serve",
]
