"""Inputs and results of the activities. Histories contain them, so they never contain secrets."""

from dataclasses import dataclass

from market.ownership import LABEL_PREFIX
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup


def label_prefix(endpoint_name: str) -> str:
    """Prefix of the labels of an endpoint's instances."""
    return f"{LABEL_PREFIX}{endpoint_name}:"


def launch_label(endpoint_name: str, launch_id: str) -> str:
    """The label of one launch: `stoker:<endpoint>:<launch id>`."""
    return f"{label_prefix(endpoint_name)}{launch_id}"


def read_label(label: str | None) -> tuple[str, str] | None:
    """The endpoint's name and the launch id in a stoker label; None: another label."""
    if label is None or not label.startswith(LABEL_PREFIX):
        return None
    name, _, launch_id = label.removeprefix(LABEL_PREFIX).rpartition(":")
    return (name, launch_id) if name and launch_id else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOffers:
    """Search offers for a workergroup."""

    workergroup: Workergroup
    limit: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInstance:
    """Rent one offer for one launch. Never rents twice for one launch id."""

    endpoint_name: str
    endpoint_id: int
    launch_id: str
    workergroup: Workergroup
    offer: Offer
    asked_before: bool = False
    """An earlier run may have rented already: look up the label before the first attempt too."""
    perf_estimate: float = 0.0
    """Load/s that the endpoint has learned for such machines; 0: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnInstance:
    """The instance to start, stop or reboot."""

    instance_id: int
    at_once: bool = False
    """Start it only if this process's own rate of starts allows it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyInstance:
    """The instance to destroy; without an id, all instances with the label."""

    instance_id: int | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInstance:
    """Apply the workergroup's current template to an instance; machine and disk are kept."""

    endpoint_name: str
    endpoint_id: int
    launch_id: str
    instance_id: int
    workergroup: Workergroup
    restart: bool = False
    """The instance runs: restart its container, so that the change takes effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInstances:
    """List the instances whose label has this prefix."""

    prefix: str
    bills_since: float | None = None
    """Include the bills of instances rented since this time, Unix seconds; None: no bills."""
    launch_ids: tuple[str, ...] = ()
    """Only these launches, which is fast; empty: all, which may take a minute for a large account."""
    known_ids: tuple[int, ...] = ()
    """Instances that the caller knows. Those that the list does not contain are looked up by id."""
