"""The marketplace of this one machine: the hosted marketplace's REST API over local processes.

Instances are processes of the user who runs the marketplace, with a CPU share and ports of their own but without walls
between them: rent here to code that you trust.
"""

from market.host.app import create_app
from market.host.faults import Fault, FaultKind
from market.host.host import UnsupportedMachine
from market.host.serve import serve
from market.host.settings import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings
from market.host.store import StateDamaged, StateInUse

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
