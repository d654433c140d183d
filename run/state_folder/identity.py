"""The identity of a deployment, stored in its Temporal namespace and in its state folder.

It is part of every label on the marketplace (`market.ownership`), so that deployments with the same marketplace key do
not change each other's instances.

The first identity is derived from the namespace's UUID, so that two workers that start at once get the same. Then it is
stored in the namespace's data. The state folder has a copy for `stokerd panic`, which must work without Temporal. The dev
server's database is in the state folder, so `stokerd dev` uses the folder's copy.

A copy of a state folder is another deployment. `stokerd dev` compares the folder's location with the stored one, and
refuses to start from a copy until the user decides (`stokerd identity --new` or `--set`).
"""

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from market.copy_detection import FolderLocation, locate_folder
from market.ownership import DEPLOYMENT_PATTERN
from run.errors import CommandError
from run.state_folder.secure_files import private_folder, write_private

log = structlog.get_logger(__name__)

DATA_KEY = "stoker.deployment"
"""Key in the namespace's data."""
_LOCATION_KEY = "stoker.location"
_FILE = "deployment.json"
_NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
"""Clusters that do not allow this client to change namespaces: the derived identity is stable without being stored."""


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """The identity in a state folder, and its Temporal namespace."""

    deployment: str
    temporal: str
    """`address/namespace`; empty before the first start."""
    location: FolderLocation | None = field(default=None, compare=False)
    """The location of the folder when the identity was stored."""


def new_identity() -> str:
    """A random identity."""
    return secrets.token_hex(6)


def require_identity(given: str, option: str) -> str:
    """The identity that the user gave with an option.

    Raises:
        CommandError: it is not an identity.
    """
    if not re.fullmatch(DEPLOYMENT_PATTERN, given):
        raise CommandError(f"{option} should be 12 lower-case letters and digits (got {given!r:.80})")
    return given


def read_identity(state_dir: Path) -> StoredIdentity | None:
    """The identity in the state folder; None if there is no file.

    Raises:
        CommandError: the file cannot be read.
    """
    path = state_dir / _FILE
    found = _read(path)
    if found is None:
        return None
    deployment = found.get("deployment")
    if not isinstance(deployment, str) or not re.fullmatch(DEPLOYMENT_PATTERN, deployment):
        raise CommandError(
            f"{path}: deployment should be 12 lower-case letters and digits; correct it, or remove the file: "
            "the identity is then read from Temporal"
        )
    location = _read_location(found.get("location"))
    return StoredIdentity(deployment, str(found.get("temporal") or ""), location)


def require_original(state_dir: Path) -> None:
    """Check that the folder has the location at which its identity was stored.

    Raises:
        CommandError: the folder is a copy, or the machine is a clone.
    """
    stored = read_identity(state_dir)
    if stored is not None and stored.location is not None:
        _require_same(state_dir, stored.deployment, stored.location)


def _require_same(state_dir: Path, deployment: str, location: FolderLocation) -> None:
    if difference := location.differs_from(locate_folder(state_dir)):
        raise CommandError(
            f"{state_dir} is a copy: the deployment {deployment} was stored {difference}. With both running, each would "
            f"change the other's machines. Run `stokerd identity --new` to make this a separate deployment, which rents "
            f"its own machines; or `stokerd identity --set {deployment}` if the original will never run again",
            exit_code=3,
        )


def store_identity(state_dir: Path, identity: StoredIdentity) -> None:
    """Write the identity and the folder's location into the state folder.

    Raises:
        CommandError: the folder cannot be written.
    """
    private_folder(state_dir)
    path = state_dir / _FILE
    try:
        location = asdict(locate_folder(state_dir))
        record = {"deployment": identity.deployment, "temporal": identity.temporal, "location": location}
        temporary = path.with_suffix(".new")
        write_private(temporary, json.dumps(record, indent=1))
        temporary.replace(path)
    except OSError as fault:
        raise CommandError(
            f"{path} cannot be written ({fault.strerror}); give another state_dir", exit_code=3
        ) from fault


async def identity_of(client: Client) -> str:
    """The identity of the deployment that uses this namespace.

    Raises:
        CommandError: the namespace does not answer.
    """
    return (await _read_namespace(client)).deployment


@dataclass(frozen=True, slots=True)
class _NamespaceIdentity:
    """The identity in a namespace's data."""

    deployment: str
    location: FolderLocation | None
    """Location of the state folder with the server's database; None: the database is elsewhere."""


async def _read_namespace(client: Client) -> _NamespaceIdentity:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        info = (await client.workflow_service.describe_namespace(request)).namespace_info
    except RPCError as fault:
        raise CommandError(
            f"cannot read the Temporal namespace {client.namespace}: {fault}", exit_code=4
        ) from fault
    stored = info.data.get(DATA_KEY, "")
    if not re.fullmatch(DEPLOYMENT_PATTERN, stored):
        return _NamespaceIdentity(hashlib.sha256(info.id.encode()).hexdigest()[:12], None)
    try:
        location = _read_location(json.loads(info.data.get(_LOCATION_KEY, "null")))
    except ValueError:
        location = None
    return _NamespaceIdentity(stored, location)


async def ensure_identity(client: Client, state_dir: Path, *, own_server: bool = False) -> str:
    """Determine the deployment's identity, and store it in the namespace and in the state folder.

    `own_server`: the server's database is in the state folder (`stokerd dev`). Then the folder's identity is used, and a
    copy of the database alone is refused.

    Raises:
        CommandError: the namespace does not answer, the folder cannot be read or written, or the database is a copy.
    """
    stored = read_identity(state_dir)
    data: dict[str, str] = {}
    if own_server:
        private_folder(state_dir)
        data[_LOCATION_KEY] = json.dumps(asdict(locate_folder(state_dir)))
    if own_server and stored:
        deployment = stored.deployment
    else:
        found = await _read_namespace(client)
        deployment = found.deployment
        if own_server and found.location is not None:
            _require_same(state_dir, deployment, found.location)
    await _store_in_namespace(client, {DATA_KEY: deployment, **data})
    temporal = temporal_name(client)
    if stored is None or own_server or stored.temporal in {"", temporal}:
        moved = own_server and stored is not None and stored.location != locate_folder(state_dir)
        if stored != StoredIdentity(deployment, temporal) or moved:
            store_identity(state_dir, StoredIdentity(deployment, temporal))
    elif stored.deployment != deployment:
        log.warning(
            "identity_of_another_temporal",
            state_folder=stored.deployment,
            its_temporal=stored.temporal,
            deployment=deployment,
            temporal=temporal,
        )
    return deployment


def temporal_name(client: Client) -> str:
    """`address/namespace` of the client's Temporal."""
    return f"{client.service_client.config.target_host}/{client.namespace}"


async def _store_in_namespace(client: Client, data: dict[str, str]) -> None:
    try:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=client.namespace, update_info=UpdateNamespaceInfo(data=data))
        )
    except RPCError as fault:
        if fault.status not in _NOT_ALLOWED:
            raise CommandError(
                f"cannot store the deployment's identity in the Temporal namespace {client.namespace}: {fault}",
                exit_code=4,
            ) from fault
        log.info("identity_not_stored_in_namespace", deployment=data[DATA_KEY], reason=str(fault))


def _read_location(found: Any) -> FolderLocation | None:
    if not isinstance(found, dict):
        return None
    machine, inode, cards = found.get("machine"), found.get("inode"), found.get("cards")
    if not isinstance(machine, str) or not isinstance(inode, int) or not isinstance(cards, list):
        return None
    return FolderLocation(machine, inode, tuple(map(str, cards)))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise CommandError(f"{path} cannot be read ({fault.strerror}); this user should own it") from fault
    except ValueError as fault:
        raise CommandError(
            f"{path} is not JSON ({fault}); correct it, or remove it: the identity is then read from Temporal"
        ) from fault
    if not isinstance(found, dict):
        raise CommandError(f"{path} should contain a JSON object; correct it, or remove it")
    return found
