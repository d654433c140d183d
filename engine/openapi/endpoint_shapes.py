"""Bodies about endpoints, their keys, decisions and hosts, where no wire type describes them."""

from typing import Literal

from controller.query_results import AdviceView, Hosts
from engine.openapi.common import KEY, Keyed, optional
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.http.openapi import Said
from stoker_wire.messages import DecisionLine
from stoker_wire.security.client_key import KeyLimits, KeyName, Priority

NewEndpoint = optional("NewEndpoint", EndpointPatch, endpoint_name=(str, ...), **KEY)


EndpointChange = optional("EndpointChange", EndpointPatch, endpoint_name=(str | None, None), **KEY)


Advised = optional("Advised", EndpointPatch, **KEY)


class UnblockHosts(Keyed):
    """The hosts to unblock; without `machine_ids` all."""

    machine_ids: list[int] | None = None


class EndpointRecord(EndpointConfig):
    """An endpoint in the official format."""

    id: int
    endpoint_name: str
    api_key: str
    user_id: int
    created_at: float
    cold_workers: int
    endpoint_state: Literal["active", "suspended", "stopped", "deleting"]  # type: ignore[assignment]
    auto_delete_in_seconds: None
    auto_delete_due_24h: Literal[False]
    workergroup_ids: list[int]
    broken: str
    """Why the endpoint makes no progress or cannot be read completely; empty: no fault."""


class Endpoints(Said):
    """The account's endpoints."""

    success: Literal[True]
    results: list[EndpointRecord]


class EndpointShown(Said):
    """One endpoint."""

    success: Literal[True]
    result: EndpointRecord


class EndpointMade(Said):
    """The new endpoint's id."""

    success: Literal[True]
    result: int


class EndpointDeleted(Said):
    """The deletion of an endpoint and its workers. Status 202: not begun, or not complete."""

    success: Literal[True]
    msg: str
    deleted_workers: int
    failed_workers: int
    """Workers that are still billed."""
    begun: bool
    destroyed_instances: list[int] = []
    """Instances that a forced delete destroyed."""
    left_instances: list[int] = []


class EndpointDelete(Keyed):
    """Options of a delete."""

    force: bool = False
    """Terminate its workflow and destroy every instance with its label, without draining."""


class KeyRotated(Said):
    """The new key."""

    success: Literal[True]
    api_key: str
    key_version: int


class NewKey(KeyLimits):
    """A named key to create."""

    name: KeyName
    api_key: str | None = None
    """The account's key may come here."""


class KeyChange(KeyLimits):
    """The limits of a named key that change; null removes one."""

    api_key: str | None = None
    """The account's key may come here."""


class KeyMade(Said):
    """The new key. No other answer shows its text."""

    success: Literal[True]
    name: str
    api_key: str


class KeyShown(Said):
    """A named key without its text."""

    name: str
    created_at: float
    load_per_second: float | None
    dollars_per_day: float | None
    priority: Priority
    dollars_today: float
    """Dollars of this UTC day, as far as this engine knows."""


class Keys(Said):
    """The named keys of an endpoint."""

    success: Literal[True]
    keys: list[KeyShown]


class Decisions(Said):
    """The last decisions with their reasons, oldest first."""

    decisions: list[DecisionLine]


class Advice(Said):
    """The plan of an advised config beside the live one."""

    advice: AdviceView


class HostsShown(Said):
    """Blocked hosts with the reasons."""

    hosts: Hosts


class HostsUnblocked(Said):
    """The machine ids that were unblocked."""

    success: Literal[True]
    unblocked: list[int]


class Logs(Said):
    """The decision log as text; each level includes the less detailed ones."""

    info0: str
    info1: str
    trace: str
    debug: str
