"""One input and one result per activity. They stand in histories: no secret ever enters one."""

from dataclasses import dataclass

from market.ownership import LABEL_PREFIX
from stoker_wire.market import Charge, Instance, Offer
from stoker_wire.workergroup import Workergroup


def label_prefix(endpoint_name: str) -> str:
    """What the labels of one endpoint's instances start with."""
    return f"{LABEL_PREFIX}{endpoint_name}:"


def launch_label(endpoint_name: str, launch_id: str) -> str:
    """The label of one launch: `stoker:<endpoint>:<launch id>`."""
    return f"{label_prefix(endpoint_name)}{launch_id}"


def read_label(label: str | None) -> tuple[str, str] | None:
    """The endpoint's name and the launch id of a label of ours; None for anybody else's."""
    if label is None or not label.startswith(LABEL_PREFIX):
        return None
    name, _, launch_id = label.removeprefix(LABEL_PREFIX).rpartition(":")
    return (name, launch_id) if name and launch_id else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOffers:
    """Which offers may a workergroup rent now?"""

    workergroup: Workergroup
    limit: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOffers:
    """The offers, trimmed, best price-performance first within each machine kind."""

    offers: tuple[Offer, ...] = ()
    matched: int = 0
    """How many there were before trimming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInstance:
    """Rent one offer for one launch. Never rents twice for one launch id."""

    endpoint_name: str
    endpoint_id: int
    launch_id: str
    workergroup: Workergroup
    offer: Offer
    asked_before: bool = False
    """An earlier run may have asked already: look the label up before the first try, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedInstance:
    """The rented machine and its price."""

    instance_id: int
    machine_id: int = 0
    dollars_per_hour: float = 0.0
    """While it runs, storage included."""
    storage_dollars_per_hour: float = 0.0
    adopted: bool = False
    """It was there already: an earlier try's answer had been lost."""
    warnings: tuple[str, ...] = ()
    """What of its template may not take effect as it is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnInstance:
    """Start, stop or reboot this instance."""

    instance_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyInstance:
    """Release this instance; without an id, whatever carries the label."""

    instance_id: int | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInstance:
    """Bring an instance to its workergroup's current template, keeping machine and disk."""

    endpoint_name: str
    endpoint_id: int
    launch_id: str
    instance_id: int
    workergroup: Workergroup
    restart: bool = False
    """It runs: restart its container, for the change to take effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInstances:
    """Which instances carry a label that starts with this?"""

    prefix: str
    bills_since: float | None = None
    """Bring their bills too, of instances rented since then; None: not now."""
    launch_ids: tuple[str, ...] = ()
    """Those of these launches alone, at once; empty: all, which of a large account may take a minute."""
    known_ids: tuple[int, ...] = ()
    """Instances that the caller knows. Each that the list does not show is asked for by its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInstances:
    """The marketplace's own view."""

    instances: tuple[Instance, ...] = ()
    """What the list shows, and known instances that only exist by their id."""
    shown: tuple[int, ...] = ()
    """Known instances that the list did not show and that exist: their label was edited, or the list is incomplete."""
    gone: tuple[int, ...] = ()
    """Known instances of which the marketplace said, asked for the id, that they do not exist."""
    charges: tuple[Charge, ...] | None = None
    """What they were billed, gone ones too; None: not asked for, or not to be had."""
