"""`client.endpoints`, `client.keys`, `client.workergroups` and `client.marketplace` of the sync client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from stoker.loop_thread import LoopThread
from stoker.management.endpoints import DecisionRows, Endpoints, MachineIds, WorkerRows
from stoker.management.keys import Keys
from stoker.management.marketplace import FoundOffers, Marketplace, TemplateRows
from stoker.management.records import (
    EndpointRecord,
    KeyRecord,
    Logs,
    TemplateRecord,
    WorkergroupRecord,
    WorkerRecord,
)
from stoker.management.workergroups import Workergroups
from stoker_wire.control import WorkerAction
from stoker_wire.endpoint import EndpointConfig


class SyncEndpoints:
    """See `stoker.management.endpoints.Endpoints`."""

    def __init__(self, loop: LoopThread, endpoints: Endpoints) -> None:
        self._loop = loop
        self._endpoints = endpoints

    def list(self) -> list[EndpointRecord]:
        """All endpoints of this account."""
        return self._loop.run(self._endpoints.list())

    def get(self, endpoint: str | int) -> EndpointRecord:
        """One endpoint, by name or id."""
        return self._loop.run(self._endpoints.get(endpoint))

    def create(
        self, endpoint_name: str, config: EndpointConfig | None = None, **parameters: Any
    ) -> EndpointRecord:
        """Create an endpoint."""
        return self._loop.run(self._endpoints.create(endpoint_name, config, **parameters))

    def update(self, endpoint: str | int, **parameters: Any) -> None:
        """Change parameters of a live endpoint."""
        self._loop.run(self._endpoints.update(endpoint, **parameters))

    def delete(self, endpoint: str | int, *, force: bool = False) -> dict[str, Any]:
        """Delete an endpoint; every worker is destroyed. `force` terminates its workflow."""
        return self._loop.run(self._endpoints.delete(endpoint, force=force))

    def rotate_key(self, endpoint: str | int, *, overlap_seconds: float = 0.0) -> str:
        """A new routing key; the old one becomes invalid."""
        return self._loop.run(self._endpoints.rotate_key(endpoint, overlap_seconds=overlap_seconds))

    def workers(self, endpoint: str | int) -> WorkerRows:
        """The workers of an endpoint."""
        return self._loop.run(self._endpoints.workers(endpoint))

    def logs(self, endpoint: str | int, *, tail: int | None = None) -> Logs:
        """The log of an endpoint."""
        return self._loop.run(self._endpoints.logs(endpoint, tail=tail))

    def worker_log(self, endpoint: str | int, worker: str | int, *, tail: int = 200) -> dict[str, Any]:
        """The last lines of a worker's machine."""
        return self._loop.run(self._endpoints.worker_log(endpoint, worker, tail=tail))

    def worker(self, endpoint: str | int, worker: str | int) -> WorkerRecord:
        """One worker with its whole error and the phases of its last boot."""
        return self._loop.run(self._endpoints.worker(endpoint, worker))

    def change_worker(
        self, endpoint: str | int, worker: str | int, action: WorkerAction | str
    ) -> dict[str, Any]:
        """Drain, resume, reboot or destroy one worker."""
        return self._loop.run(self._endpoints.change_worker(endpoint, worker, action))

    def status(self, endpoint: str | int) -> dict[str, Any]:
        """Load against capacity, the queue, the workers, and why requests wait."""
        return self._loop.run(self._endpoints.status(endpoint))

    def decisions(self, endpoint: str | int, *, tail: int = 20) -> DecisionRows:
        """The last decisions, each with its reason."""
        return self._loop.run(self._endpoints.decisions(endpoint, tail=tail))

    def overview(self) -> dict[str, Any]:
        """Live figures of all endpoints of this account."""
        return self._loop.run(self._endpoints.overview())

    def requests(self, endpoint: str | int) -> dict[str, Any]:
        """The last, slowest and failed requests."""
        return self._loop.run(self._endpoints.requests(endpoint))

    def costs(self, endpoint: str | int) -> dict[str, Any]:
        """Dollars by worker state."""
        return self._loop.run(self._endpoints.costs(endpoint))

    def advise(self, endpoint: str | int, **parameters: Any) -> None:
        """Start a what-if analysis: a second config is planned beside the live one and not carried out."""
        self._loop.run(self._endpoints.advise(endpoint, **parameters))

    def advice(self, endpoint: str | int) -> dict[str, Any]:
        """The what-if comparison."""
        return self._loop.run(self._endpoints.advice(endpoint))

    def hosts(self, endpoint: str | int) -> dict[str, Any]:
        """Hosts that are temporarily not rented, with reasons."""
        return self._loop.run(self._endpoints.hosts(endpoint))

    def unblock_hosts(self, endpoint: str | int, machine_ids: Sequence[int] = ()) -> MachineIds:
        """Allow blocked hosts again; without ids all of them. Returns the machine ids that were blocked."""
        return self._loop.run(self._endpoints.unblock_hosts(endpoint, machine_ids))

    def stop_advice(self, endpoint: str | int) -> None:
        """Stop the what-if analysis."""
        self._loop.run(self._endpoints.stop_advice(endpoint))


class SyncKeys:
    """See `stoker.management.keys.Keys`."""

    def __init__(self, loop: LoopThread, keys: Keys) -> None:
        self._loop = loop
        self._keys = keys

    def list(self, endpoint: str | int) -> list[KeyRecord]:
        """The named keys with their limits, without their texts."""
        return self._loop.run(self._keys.list(endpoint))

    def create(self, endpoint: str | int, name: str, **limits: Any) -> SecretStr:
        """Create a key and return its text, which no other call shows."""
        return self._loop.run(self._keys.create(endpoint, name, **limits))

    def update(self, endpoint: str | int, name: str, **limits: Any) -> None:
        """Change limits of a key; None removes one."""
        self._loop.run(self._keys.update(endpoint, name, **limits))

    def revoke(self, endpoint: str | int, name: str) -> None:
        """Make a key invalid."""
        self._loop.run(self._keys.revoke(endpoint, name))


class SyncWorkergroups:
    """See `stoker.management.workergroups.Workergroups`."""

    def __init__(self, loop: LoopThread, workergroups: Workergroups) -> None:
        self._loop = loop
        self._workergroups = workergroups

    def list(self, *, endpoint: str | int | None = None) -> list[WorkergroupRecord]:
        """All workergroups, or those of one endpoint."""
        return self._loop.run(self._workergroups.list(endpoint=endpoint))

    def get(self, workergroup_id: int) -> WorkergroupRecord:
        """One workergroup."""
        return self._loop.run(self._workergroups.get(workergroup_id))

    def create(self, endpoint: str | int, **parameters: Any) -> WorkergroupRecord:
        """Create a workergroup."""
        return self._loop.run(self._workergroups.create(endpoint, **parameters))

    def update(self, workergroup_id: int, **parameters: Any) -> None:
        """Change a workergroup; a new template or search filter starts a rolling update."""
        self._loop.run(self._workergroups.update(workergroup_id, **parameters))

    def delete(self, workergroup_id: int) -> None:
        """Delete a workergroup; its workers are drained and destroyed."""
        self._loop.run(self._workergroups.delete(workergroup_id))

    def workers(self, workergroup_id: int) -> WorkerRows:
        """The workers of a workergroup."""
        return self._loop.run(self._workergroups.workers(workergroup_id))

    def logs(self, workergroup_id: int, *, tail: int | None = None) -> Logs:
        """The log of a workergroup."""
        return self._loop.run(self._workergroups.logs(workergroup_id, tail=tail))

    def update_workers(self, workergroup_id: int, *, cancel: bool = False) -> int:
        """Update every worker without dropping a request. Returns how many workers are due."""
        return self._loop.run(self._workergroups.update_workers(workergroup_id, cancel=cancel))


class SyncMarketplace:
    """See `stoker.management.marketplace.Marketplace`."""

    def __init__(self, loop: LoopThread, marketplace: Marketplace) -> None:
        self._loop = loop
        self._marketplace = marketplace

    def offers(self, search: Any = "", **group: Any) -> FoundOffers:
        """The offers that a workergroup with this search would rent, with their prices."""
        return self._loop.run(self._marketplace.offers(search, **group))

    def templates(self, *, name: str | None = None) -> TemplateRows:
        """All templates, or those with this name."""
        return self._loop.run(self._marketplace.templates(name=name))

    def create_template(self, **template: Any) -> TemplateRecord:
        """Create a template."""
        return self._loop.run(self._marketplace.create_template(**template))

    def delete_template(self, hash_id: str) -> None:
        """Delete a template that no workergroup uses."""
        self._loop.run(self._marketplace.delete_template(hash_id))

    def instance(self, instance_id: int) -> dict[str, Any]:
        """The marketplace's row of one of this account's instances."""
        return self._loop.run(self._marketplace.instance(instance_id))
