"""The marketplace of this one machine: the hosted marketplace's REST API over local processes."""

from market.host.app import create_app
from market.host.faults import Fault, FaultKind
from market.host.settings import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings
from market.host.store import StateInUse

__all__ = [
    "Fault",
    "FaultKind",
    "GpuSettings",
    "HostMarketSettings",
    "MachineSettings",
    "StateInUse",
    "TemplateSettings",
    "create_app",
]
