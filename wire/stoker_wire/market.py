"""Offers, instances, charges and templates of the marketplace API (2026), with the fields that stoker reads."""

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from stoker_wire.base import TolerantModel
from stoker_wire.parsing.limits import MARKET_TEXT_BYTES_MAX, shortened
from stoker_wire.parsing.numbers import finite

DOLLARS_PER_HOUR_MAX = 1e6
"""Limit for one machine; a higher price is treated as invalid."""


def _price(value: Any) -> float:
    dollars = finite(value)
    return dollars if dollars is not None and 0 <= dollars <= DOLLARS_PER_HOUR_MAX else 0.0


DollarsPerHour = Annotated[float, BeforeValidator(_price)]
"""$/h of a rented machine; 0: unknown. An invalid price counts as unknown, so that the machine is still listed."""


def _shortened(value: Any) -> Any:
    return shortened(value, MARKET_TEXT_BYTES_MAX) if isinstance(value, str) else value


MarketText = Annotated[str, BeforeValidator(_shortened)]
"""A name or status from the marketplace, shortened so that a host cannot fill an endpoint's state."""


class Offer(TolerantModel):
    """A machine that is available for rent."""

    id: int
    machine_id: int = 0
    host_id: int = 0
    gpu_name: MarketText = ""
    num_gpus: int = 1
    gpu_ram: float = 0.0
    """MB per GPU."""
    dph_total: float = Field(0.0, ge=0)
    """$/h while running, storage included."""
    dph_base: float = 0.0
    min_bid: float = 0.0
    storage_cost: float = 0.0
    """$ per GB and month of disk."""
    dlperf: float | None = None
    reliability: float | None = Field(None, validation_alias=AliasChoices("reliability", "reliability2"))
    geolocation: MarketText | None = None
    duration: float | None = None
    """Seconds for which the host offers the machine."""
    is_bid: bool = False

    @property
    def kind(self) -> str:
        """The machine kind, e.g. `2x RTX 4090`."""
        return f"{self.num_gpus}x {self.gpu_name}"


class Instance(TolerantModel):
    """A rented machine."""

    id: int
    actual_status: MarketText | None = None
    """null, loading, running, stopped, frozen, exited, rebooting, unknown or offline."""
    intended_status: MarketText | None = None
    """running, stopped or frozen."""
    cur_state: MarketText | None = None
    next_state: MarketText | None = None
    status_msg: str | None = None
    label: str | None = None
    public_ipaddr: str | None = None
    ports: dict[str, Any] | None = None
    machine_id: int = 0
    host_id: int = 0
    gpu_name: MarketText | None = None
    num_gpus: int = 1
    dph_total: DollarsPerHour = 0.0
    dph_base: DollarsPerHour = 0.0
    storage_total_cost: DollarsPerHour = 0.0
    """$/h of the disk, billed also while stopped."""
    start_date: float | None = None
    is_bid: bool = False
    address: str = ""
    """Not in the API: public address and published ports as `host:port,port…`, to check a worker's url."""


class Charge(TolerantModel):
    """The total bill of one instance: machine, disk and bandwidth."""

    instance_id: int
    label: str = ""
    dollars: float = 0.0
    since: float = 0.0
    """Start of the billed time, Unix seconds."""
    until: float = 0.0
    """End of the billed time, Unix seconds."""
    final: bool = False
    """Whether the instance was destroyed and the bill is complete."""


class Template(TolerantModel):
    """The code that an instance runs."""

    id: int
    hash_id: str = ""
    name: str = ""
    image: str | None = None
    tag: str | None = None
    env: str | None = None
    """Docker flags: `-e A=b -p 3000:3000`."""
    onstart: str | None = None
    args_str: str | None = None
    runtype: str | None = None
    extra_filters: str | dict[str, Any] | None = None
    recommended_disk_space: float | None = None
