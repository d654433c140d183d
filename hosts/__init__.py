"""The marketplace of this one machine: the hosted marketplace's REST API over local processes.

Instances are processes of the user who runs the marketplace, with a CPU share and ports of their own but without walls
between them: rent here to code that you trust.
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
