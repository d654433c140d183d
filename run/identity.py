"""The identity of a deployment: made once, kept in its Temporal namespace and in its state folder.

It stands in every label on the marketplace (`market.ownership`), so that deployments with one marketplace key leave each
other's instances alone.

The first identity is derived from the namespace's UUID: two workers that start at once find the same. From then on
the namespace's data hold it. The state folder holds a copy for `stokerd panic`, which must work without Temporal. The dev
server's database is inside the state folder, so there the folder's copy decides.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from temporalio.api.namespace.v1 import UpdateNamespaceInfo
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from market.ownership import DEPLOYMENT_PATTERN
from run.faults import Fault
from run.private import private_folder, write_private

log = structlog.get_logger(__name__)

DATA_KEY = "stoker.deployment"
"""Of the namespace's data."""
_FILE = "deployment.json"
_NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
"""Answers of clusters whose namespaces are changed in another way: the derived identity stays the same without being kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The identity in a state folder, and the Temporal that it belongs to."""

    deployment: str
    temporal: str
    """`address/namespace`; empty for a deployment that has not started yet."""


def new_identity() -> str:
    """A random identity."""
    return secrets.token_hex(6)


def read_identity(state_dir: Path) -> Kept | None:
    """The identity in the state folder; None if it has none.

    Raises:
        Fault: the file cannot be read.
    """
    path = state_dir / _FILE
    found = _read(path)
    if found is None:
        return None
    deployment = found.get("deployment")
    if not isinstance(deployment, str) or not re.fullmatch(DEPLOYMENT_PATTERN, deployment):
        raise Fault(
            f"{path}: deployment should be 12 lower-case letters and digits; mend it, or remove the file: "
            "the identity is then read from Temporal"
        )
    return Kept(deployment, str(found.get("temporal") or ""))


def keep_identity(state_dir: Path, kept: Kept) -> None:
    """Write the identity into the state folder.

    Raises:
        Fault: the folder cannot be written.
    """
    private_folder(state_dir)
    path = state_dir / _FILE
    said = (_read(path) or {}) | {"deployment": kept.deployment, "temporal": kept.temporal}
    try:
        temporary = path.with_suffix(".new")
        write_private(temporary, json.dumps(said, indent=1))
        temporary.replace(path)
    except OSError as fault:
        raise Fault(
            f"{path} cannot be written ({fault.strerror}); give another state_dir", exit_code=3
        ) from fault


async def identity_of(client: Client) -> str:
    """The identity of the deployment whose workflows this namespace holds.

    Raises:
        Fault: the namespace does not answer.
    """
    try:
        info = (
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=client.namespace)
            )
        ).namespace_info
    except RPCError as fault:
        raise Fault(f"cannot read the Temporal namespace {client.namespace}: {fault}", exit_code=4) from fault
    held = info.data.get(DATA_KEY, "")
    if re.fullmatch(DEPLOYMENT_PATTERN, held):
        return held
    return hashlib.sha256(info.id.encode()).hexdigest()[:12]


async def settle_identity(client: Client, state_dir: Path, *, own_server: bool = False) -> str:
    """The deployment's identity, kept in the namespace and in the state folder from now on.

    `own_server`: the server's database is in the state folder (`stokerd dev`); then the folder decides.

    Raises:
        Fault: the namespace does not answer, or the folder cannot be read or written.
    """
    kept = read_identity(state_dir)
    deployment = kept.deployment if own_server and kept else await identity_of(client)
    await _keep_in_namespace(client, deployment)
    here = temporal_name(client)
    if kept is None or own_server or kept.temporal in {"", here}:
        if kept != Kept(deployment, here):
            keep_identity(state_dir, Kept(deployment, here))
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


async def _keep_in_namespace(client: Client, deployment: str) -> None:
    try:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(
                namespace=client.namespace, update_info=UpdateNamespaceInfo(data={DATA_KEY: deployment})
            )
        )
    except RPCError as fault:
        if fault.status not in _NOT_ALLOWED:
            raise Fault(
                f"cannot keep the deployment's identity in the Temporal namespace {client.namespace}: {fault}",
                exit_code=4,
            ) from fault
        log.info("identity_not_kept_in_namespace", deployment=deployment, reason=str(fault))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise Fault(
            f"{path} cannot be read ({fault.strerror}); it should be a file of this user's"
        ) from fault
    except ValueError as fault:
        raise Fault(
            f"{path} is not JSON ({fault}); mend it, or remove it: the identity is then read from Temporal"
        ) from fault
    if not isinstance(found, dict):
        raise Fault(f"{path} should hold a JSON object; mend it, or remove it")
    return found
