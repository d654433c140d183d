"""The identity of a deployment: made once, kept in its Temporal namespace and in its state folder.

It stands in every label on the marketplace (`market.ownership`), so that deployments with one marketplace key leave each
other's instances alone.

The first identity is derived from the namespace's UUID: two workers that start at once find the same. From then on
the namespace's data hold it. The state folder holds a copy for `stokerd panic`, which must work without Temporal. The dev
server's database is inside the state folder, so there the folder's copy decides.

A copy of a state folder is another deployment. `stokerd dev` compares the folder's place with the place where the identity
was kept, and refuses to start from a copy until a person decides (`stokerd identity --new` or `--set`).
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

from market.folder_location import FolderLocation, locate_folder
from market.ownership import DEPLOYMENT_PATTERN
from run.errors import CommandError
from run.state_folder.secure_files import private_folder, write_private

log = structlog.get_logger(__name__)

DATA_KEY = "stoker.deployment"
"""Of the namespace's data."""
_LOCATION_KEY = "stoker.location"
_FILE = "deployment.json"
_NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
"""Answers of clusters whose namespaces are changed in another way: the derived identity stays the same without being kept."""


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """The identity in a state folder, and the Temporal that it belongs to."""

    deployment: str
    temporal: str
    """`address/namespace`; empty for a deployment that has not started yet."""
    place: FolderLocation | None = field(default=None, compare=False)
    """Where it was kept."""


def new_identity() -> str:
    """A random identity."""
    return secrets.token_hex(6)


def require_identity(given: str, option: str) -> str:
    """What a person gave as an identity.

    Raises:
        CommandError: it cannot be one.
    """
    if not re.fullmatch(DEPLOYMENT_PATTERN, given):
        raise CommandError(f"{option} should be 12 lower-case letters and digits (got {given!r:.80})")
    return given


def read_identity(state_dir: Path) -> StoredIdentity | None:
    """The identity in the state folder; None if it has none.

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
            f"{path}: deployment should be 12 lower-case letters and digits; mend it, or remove the file: "
            "the identity is then read from Temporal"
        )
    return StoredIdentity(deployment, str(found.get("temporal") or ""), _place(found.get("place")))


def require_original(state_dir: Path) -> None:
    """Make sure that the folder is where its identity was kept.

    Raises:
        CommandError: it is a copy, or the machine is a clone.
    """
    kept = read_identity(state_dir)
    if kept is not None and kept.place is not None:
        _require_same(state_dir, kept.deployment, kept.place)


def _require_same(state_dir: Path, deployment: str, place: FolderLocation) -> None:
    if difference := place.differs_from(locate_folder(state_dir)):
        raise CommandError(
            f"{state_dir} is a copy: the deployment {deployment} was kept {difference}. With both running, each would change "
            f"the other's machines. Run `stokerd identity --new` to make this a deployment of its own, whose endpoints rent "
            f"their own machines; or `stokerd identity --set {deployment}` if the original will never run again",
            exit_code=3,
        )


def store_identity(state_dir: Path, kept: StoredIdentity) -> None:
    """Write the identity into the state folder, and the folder's place with it.

    Raises:
        CommandError: the folder cannot be written.
    """
    private_folder(state_dir)
    path = state_dir / _FILE
    try:
        place = asdict(locate_folder(state_dir))
        said = {"deployment": kept.deployment, "temporal": kept.temporal, "place": place}
        temporary = path.with_suffix(".new")
        write_private(temporary, json.dumps(said, indent=1))
        temporary.replace(path)
    except OSError as fault:
        raise CommandError(
            f"{path} cannot be written ({fault.strerror}); give another state_dir", exit_code=3
        ) from fault


async def identity_of(client: Client) -> str:
    """The identity of the deployment whose workflows this namespace holds.

    Raises:
        CommandError: the namespace does not answer.
    """
    return (await _held(client)).deployment


@dataclass(frozen=True, slots=True)
class _Held:
    """What the namespace says."""

    deployment: str
    place: FolderLocation | None
    """Of the state folder with the server's database; None: a server of its own."""


async def _held(client: Client) -> _Held:
    asked = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        info = (await client.workflow_service.describe_namespace(asked)).namespace_info
    except RPCError as fault:
        raise CommandError(
            f"cannot read the Temporal namespace {client.namespace}: {fault}", exit_code=4
        ) from fault
    held = info.data.get(DATA_KEY, "")
    if not re.fullmatch(DEPLOYMENT_PATTERN, held):
        return _Held(hashlib.sha256(info.id.encode()).hexdigest()[:12], None)
    try:
        place = _place(json.loads(info.data.get(_LOCATION_KEY, "null")))
    except ValueError:
        place = None
    return _Held(held, place)


async def ensure_identity(client: Client, state_dir: Path, *, own_server: bool = False) -> str:
    """The deployment's identity, kept in the namespace and in the state folder from now on.

    `own_server`: the server's database is in the state folder (`stokerd dev`); then the folder decides, and a copy
    of the database alone is refused.

    Raises:
        CommandError: the namespace does not answer, the folder cannot be read or written, or the database is a copy.
    """
    kept = read_identity(state_dir)
    data: dict[str, str] = {}
    if own_server:
        private_folder(state_dir)
        data[_LOCATION_KEY] = json.dumps(asdict(locate_folder(state_dir)))
    if own_server and kept:
        deployment = kept.deployment
    else:
        held = await _held(client)
        deployment = held.deployment
        if own_server and held.place is not None:
            _require_same(state_dir, deployment, held.place)
    await _keep_in_namespace(client, {DATA_KEY: deployment, **data})
    here = temporal_name(client)
    if kept is None or own_server or kept.temporal in {"", here}:
        if kept != StoredIdentity(deployment, here) or (
            own_server and kept.place != locate_folder(state_dir)
        ):
            store_identity(state_dir, StoredIdentity(deployment, here))
    elif kept.deployment != deployment:
        log.warning(
            "identity_of_another_temporal",
            state_folder=kept.deployment,
            its_temporal=kept.temporal,
            deployment=deployment,
            temporal=here,
        )
    return deployment


def temporal_name(client: Client) -> str:
    """`address/namespace` of the client's Temporal."""
    return f"{client.service_client.config.target_host}/{client.namespace}"


async def _keep_in_namespace(client: Client, data: dict[str, str]) -> None:
    try:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=client.namespace, update_info=UpdateNamespaceInfo(data=data))
        )
    except RPCError as fault:
        if fault.status not in _NOT_ALLOWED:
            raise CommandError(
                f"cannot keep the deployment's identity in the Temporal namespace {client.namespace}: {fault}",
                exit_code=4,
            ) from fault
        log.info("identity_not_kept_in_namespace", deployment=data[DATA_KEY], reason=str(fault))


def _place(found: Any) -> FolderLocation | None:
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
        raise CommandError(
            f"{path} cannot be read ({fault.strerror}); it should be a file of this user's"
        ) from fault
    except ValueError as fault:
        raise CommandError(
            f"{path} is not JSON ({fault}); mend it, or remove it: the identity is then read from Temporal"
        ) from fault
    if not isinstance(found, dict):
        raise CommandError(f"{path} should hold a JSON object; mend it, or remove it")
    return found
