"""`/api/v0/endptjobs/`: endpoints in the format of the official records."""

import contextlib
import re
import time
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from controller.query_results import Costs, EndpointStatus
from engine.api.keys import user_id
from engine.api.parsing import answer, path_id, read_object
from engine.console.endpoint_workflows import EndpointExistsError, EndpointWorkflows
from engine.engine import Engine
from engine.openapi import common, endpoint_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, TAIL, TEMPORAL, ok
from engine.routing.endpoint import Endpoint
from stoker_wire.control import (
    ADVISE,
    QUERY_ADVICE,
    QUERY_COSTS,
    QUERY_DECISIONS,
    QUERY_HOSTS,
    QUERY_STATUS,
    ROTATE_KEY,
    UNBLOCK_HOSTS,
    UPDATE_CONFIG,
    Advise,
    release_id,
)
from stoker_wire.endpoint import (
    ENDPOINT_NAME_CHARS_MAX,
    ENDPOINT_NAME_PATTERN,
    EndpointConfig,
    EndpointPatch,
)
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.http.openapi import Done, handles
from stoker_wire.messages import EndpointMemo
from stoker_wire.parsing.numbers import read_whole

_REPEAT_SECONDS = 60.0
"""The official client repeats a POST up to five times. A repeated create within this time returns the same endpoint."""

_NOT_CONFIG = frozenset({"api_key", "client_id", "autoscaler_instance", "endptjob_id", "id", "user_id"})
"""Fields that official callers send besides the config."""

_NAME = re.compile(ENDPOINT_NAME_PATTERN)
_TAIL_MAX = 1000
_MACHINES_MAX = 1000
_DELETION_SECONDS_MAX = 10.0
"""How long a create waits until a deleted endpoint of the same name has ended."""


class EndpointsApi:
    """Vast's calls for endpoints, and stoker's status, decisions, costs, advice, hosts and key rotation."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows) -> None:
        self._engine = engine
        self._workflows = workflows

    @handles(
        "GET /api/v0/endptjobs/",
        tag="endpoints",
        security=ACCOUNT,
        replies=ok(endpoint_shapes.Endpoints),
        refuses=(*BODY, 503),
    )
    async def list_all(self, request: web.Request) -> web.Response:
        """The account's endpoints."""
        owner = self._engine.accounts.authenticate(request, await read_object(request))
        return answer(
            {"success": True, "results": [record(e) for e in self._engine.directory.owned_by(owner)]}
        )

    @handles(
        "POST /api/v0/endptjobs/",
        tag="endpoints",
        security=ACCOUNT,
        body=endpoint_shapes.NewEndpoint,
        replies=ok(endpoint_shapes.EndpointMade),
        refuses=(*BODY, *TEMPORAL),
    )
    async def create(self, request: web.Request) -> web.Response:
        """Create an endpoint. The same create within a minute returns the same id."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        given = _given(body)
        name = given.pop("endpoint_name", None)
        if not isinstance(name, str):
            raise Problem(
                400, "invalid_args", "endpoint_name: is required, a string of letters, digits, `_` and `-`"
            )
        _check_name(name)
        config = _config(given)
        try:
            endpoint_id = await self._workflows.start(name, config, owner)
        except EndpointExistsError:
            endpoint_id = await self._repeat_create(name, config, owner)
        return answer({"success": True, "result": endpoint_id})

    @handles(
        "GET /api/v0/endptjobs/{id}/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(endpoint_shapes.EndpointShown),
        refuses=(400, 401, 404, 503),
    )
    async def show(self, request: web.Request) -> web.Response:
        """One endpoint."""
        endpoint = await self._owned_endpoint(request)
        return answer({"success": True, "result": record(endpoint)})

    @handles(
        "PUT /api/v0/endptjobs/{id}/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=endpoint_shapes.EndpointChange,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def change(self, request: web.Request) -> web.Response:
        """Change the given fields; absent and null fields keep their values."""
        body = await read_object(request)
        endpoint = await self._owned_endpoint(request, body)
        given = _given(body)
        name = given.pop("endpoint_name", endpoint.name)
        if name != endpoint.name:
            raise Problem(
                400,
                "invalid_args",
                "endpoint_name: an endpoint cannot be renamed; create one with the new name",
            )
        try:
            patch = EndpointPatch.model_validate(given)
            endpoint.config.patched(patch)
        except ValidationError as fault:
            raise Problem(400, "invalid_args", describe(fault)) from None
        if patch.given():
            sent = patch.model_dump(mode="json", exclude_none=True)
            stored = await self._workflows.update(endpoint, UPDATE_CONFIG, sent)
            config = EndpointConfig.model_validate(stored)
            await self._workflows.wait_until_in_memo(endpoint, lambda e: e.config == config)
        return answer({"success": True})

    @handles(
        "DELETE /api/v0/endptjobs/{id}/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=endpoint_shapes.EndpointDelete,
        body_required=False,
        replies=ok(endpoint_shapes.EndpointDeleted)
        | ok(endpoint_shapes.EndpointDeleted, "Not begun, or not complete", 202),
        refuses=(*BODY, *TEMPORAL),
    )
    async def delete(self, request: web.Request) -> web.Response:
        """Destroy every worker, then the endpoint; 202 if that has not begun yet.

        `force`, in the query or the body, terminates the endpoint's workflow, which may be unable to answer. Every
        instance with its label is destroyed without draining.
        """
        body = await read_object(request)
        endpoint = await self._owned_endpoint(request, body)
        if _flag(body.get("force", request.query.get("force"))):
            return await self._release(endpoint)
        workers = len(endpoint.memo.members)
        fault = await self._workflows.delete(endpoint)
        if fault:
            message = (
                f"endpoint {endpoint.name}: the delete is stored, but nothing was destroyed yet: {fault}. "
                f"Its {workers} workers are still billed. It begins when the workflow makes progress; "
                "use a forced delete to avoid the wait"
            )
            return answer(_deleted(message, deleted=0, failed=workers, begun=False), 202)
        released = "1 worker is" if workers == 1 else f"{workers} workers are"
        message = f"endpoint {endpoint.name} is being deleted; {released} released"
        return answer(_deleted(message, deleted=workers, failed=0, begun=True))

    async def _release(self, endpoint: Endpoint) -> web.Response:
        done = await self._workflows.release(endpoint)
        if done is None:
            message = (
                f"endpoint {endpoint.name}: the forced delete is in progress; the result of the workflow "
                f"{release_id(endpoint.name)} lists the destroyed instances"
            )
            return answer(_deleted(message, deleted=0, failed=0, begun=True), 202)
        message = f"endpoint {endpoint.name} was ended; {len(done.destroyed)} instances are destroyed"
        if done.left:
            reason = done.fault or "the marketplace still lists them"
            message += f", {len(done.left)} are left ({reason}); the sweep continues"
        reply = _deleted(message, deleted=len(done.destroyed), failed=len(done.left), begun=True)
        return answer(
            reply | {"destroyed_instances": list(done.destroyed), "left_instances": list(done.left)},
            202 if done.left else 200,
        )

    @handles(
        "POST /api/v0/endptjobs/{id}/rotate_key/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=common.Keyed,
        body_required=False,
        replies=ok(endpoint_shapes.KeyRotated),
        refuses=(*BODY, *TEMPORAL),
    )
    async def rotate_key(self, request: web.Request) -> web.Response:
        """Create a new endpoint key. The old one is invalid at once on this engine, within two seconds on others.

        `overlap_seconds` in the body keeps the old key valid for this time.
        """
        body = await read_object(request)
        endpoint = await self._owned_endpoint(request, body)
        asked = [] if body.get("overlap_seconds") is None else [body["overlap_seconds"]]
        version = await self._workflows.update(endpoint, ROTATE_KEY, *asked)
        await self._workflows.wait_until_in_memo(endpoint, lambda e: e.memo.key_version >= int(version))
        return answer({"success": True, "api_key": endpoint.key, "key_version": endpoint.memo.key_version})

    @handles(
        "GET /api/v0/endptjobs/{id}/status/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(EndpointStatus),
        refuses=(400, 401, *TEMPORAL),
    )
    async def status(self, request: web.Request) -> web.Response:
        """Current and wanted workers, and pending operations."""
        endpoint = await self._owned_endpoint(request)
        return answer(await self._workflows.query(endpoint, QUERY_STATUS))

    @handles(
        "GET /api/v0/endptjobs/{id}/decisions/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID, TAIL),
        replies=ok(endpoint_shapes.Decisions),
        refuses=(400, 401, *TEMPORAL),
    )
    async def decisions(self, request: web.Request) -> web.Response:
        """The last decisions with their reasons, oldest first."""
        endpoint = await self._owned_endpoint(request)
        return answer(
            {
                "decisions": await self._workflows.query(
                    endpoint, QUERY_DECISIONS, read_tail(request.query.get("tail"))
                )
            }
        )

    @handles(
        "GET /api/v0/endptjobs/{id}/costs/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(Costs),
        refuses=(400, 401, *TEMPORAL),
    )
    async def costs(self, request: web.Request) -> web.Response:
        """Dollars spent, and dollars per hour now."""
        endpoint = await self._owned_endpoint(request)
        return answer(await self._workflows.query(endpoint, QUERY_COSTS))

    @handles(
        "GET /api/v0/endptjobs/{id}/advice/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(endpoint_shapes.Advice),
        refuses=(400, 401, *TEMPORAL),
    )
    async def advice(self, request: web.Request) -> web.Response:
        """The advised config and how its plan differs from the live one."""
        endpoint = await self._owned_endpoint(request)
        return answer({"advice": await self._workflows.query(endpoint, QUERY_ADVICE)})

    @handles(
        "PUT /api/v0/endptjobs/{id}/advice/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=endpoint_shapes.Advised,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def advise(self, request: web.Request) -> web.Response:
        """Plan a second config beside the live one, without carrying it out."""
        body = await read_object(request)
        endpoint = await self._owned_endpoint(request, body)
        given = _given(body)
        given.pop("endpoint_name", None)
        try:
            asked = Advise.model_validate({"config": given})
            endpoint.config.patched(asked.config)
        except ValidationError as fault:
            raise Problem(400, "invalid_args", describe(fault)) from None
        await self._workflows.update(endpoint, ADVISE, asked.model_dump(mode="json", exclude_none=True))
        return answer({"success": True})

    @handles(
        "DELETE /api/v0/endptjobs/{id}/advice/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=common.Keyed,
        body_required=False,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def stop_advice(self, request: web.Request) -> web.Response:
        """Stop planning the second config."""
        endpoint = await self._owned_endpoint(request, await read_object(request))
        await self._workflows.update(endpoint, ADVISE, None)
        return answer({"success": True})

    @handles(
        "GET /api/v0/endptjobs/{id}/hosts/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(endpoint_shapes.HostsShown),
        refuses=(400, 401, *TEMPORAL),
    )
    async def hosts(self, request: web.Request) -> web.Response:
        """Blocked hosts, with the reason and the end of the block."""
        endpoint = await self._owned_endpoint(request)
        return answer({"hosts": await self._workflows.query(endpoint, QUERY_HOSTS)})

    @handles(
        "POST /api/v0/endptjobs/{id}/hosts/unblock/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=endpoint_shapes.UnblockHosts,
        body_required=False,
        replies=ok(endpoint_shapes.HostsUnblocked),
        refuses=(*BODY, *TEMPORAL),
    )
    async def unblock_hosts(self, request: web.Request) -> web.Response:
        """Unblock hosts: `machine_ids` in the body, or all."""
        body = await read_object(request)
        endpoint = await self._owned_endpoint(request, body)
        machines = _machines(body.get("machine_ids"))
        freed = await self._workflows.update(endpoint, UNBLOCK_HOSTS, machines)
        return answer({"success": True, "unblocked": freed})

    async def _owned_endpoint(self, request: web.Request, body: dict[str, Any] | None = None) -> Endpoint:
        owner = self._engine.accounts.authenticate(request, body)
        return self._engine.directory.of_owner(path_id(request), owner)

    async def _repeat_create(self, name: str, config: EndpointConfig, owner: str) -> int:
        """Handle a create whose name is in use: by the same create, an endpoint under deletion, or another one."""
        await self._engine.endpoint_watcher.refresh(name)
        endpoint = self._engine.directory.named(name)
        if endpoint is not None and endpoint.memo.owner == owner and endpoint.deleting:
            if not await self._workflows.wait_until_closed(name, _DELETION_SECONDS_MAX):
                raise deletion_under_way(endpoint)
            endpoint = None
        if endpoint is None:  # it has ended in the meantime
            with contextlib.suppress(EndpointExistsError):
                return await self._workflows.start(name, config, owner)
            await self._engine.endpoint_watcher.refresh(name)
            endpoint = self._engine.directory.named(name)
        if endpoint is not None and endpoint.memo.owner == owner and not endpoint.deleting:
            young = time.time() - endpoint.memo.created_at < _REPEAT_SECONDS
            if young and endpoint.config == config:
                return endpoint.id
        raise Problem(
            400,
            "endpoint_exists",
            f"there is an endpoint named {name!r} already; delete it first or choose another name",
        )


def deletion_under_way(endpoint: Endpoint) -> Problem:
    """The problem for a create while an endpoint of this name is being deleted."""
    left = len(endpoint.memo.members)
    ends = (
        f"it ends about 30 s after the marketplace confirms that the last of its {left} workers is released"
        if left
        else "its workers are released, it ends after a final listing of the marketplace, within about 30 s"
    )
    message = f"the endpoint {endpoint.name!r} is still being deleted: {ends}; create it again then"
    return Problem(503, "endpoint_deleting", message, headers={"Retry-After": "5"})


def record(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint in the official format."""
    memo: EndpointMemo = endpoint.memo
    config = endpoint.config.model_dump(mode="json")
    return config | {
        "id": memo.id,
        "endpoint_name": memo.name,
        "api_key": endpoint.key,
        "user_id": user_id(memo.owner),
        "created_at": memo.created_at,
        "cold_workers": config["min_workers"],
        "endpoint_state": "deleting" if endpoint.deleting else config["endpoint_state"],
        "auto_delete_in_seconds": None,
        "auto_delete_due_24h": False,
        "workergroup_ids": list(memo.groups),
        "broken": endpoint.fault,
    }


def _deleted(message: str, *, deleted: int, failed: int, begun: bool) -> dict[str, Any]:
    return {
        "success": True,
        "msg": message,
        "deleted_workers": deleted,
        "failed_workers": failed,
        "begun": begun,
    }


def _flag(value: object) -> bool:
    """A boolean from JSON or from a query string.

    Raises:
        Problem: 400.
    """
    if value in (None, False, "", "false", "0"):
        return False
    if value in (True, "true", "1"):
        return True
    raise Problem(400, "invalid_args", f"force: must be true or false, not {str(value)[:40]!r}")


def read_tail(value: object, default: int = 200) -> int:
    """The requested number of lines.

    Raises:
        Problem: 400.
    """
    if value is None:
        return default
    tail = read_whole(str(value))
    if not tail:
        raise Problem(
            400, "invalid_args", f"tail: must be a whole number from 1 up (got {str(value)[:40]!r})"
        )
    return min(tail, _TAIL_MAX)


def _machines(given: object) -> list[int]:
    """The machine ids of a body; empty: all.

    Raises:
        Problem: 400.
    """
    machines = [] if given is None else given
    if not isinstance(machines, list) or len(machines) > _MACHINES_MAX:
        message = f"machine_ids: must be a list of at most {_MACHINES_MAX} machine ids"
        raise Problem(400, "invalid_args", message)
    for machine in machines:
        if isinstance(machine, bool) or not isinstance(machine, int) or not 0 < machine < 2**63:
            message = f"machine_ids: must be whole numbers from 1 up (got {machine!r:.40})"
            raise Problem(400, "invalid_args", message)
    return machines


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None and key not in _NOT_CONFIG}


def _config(given: dict[str, Any]) -> EndpointConfig:
    try:
        return EndpointConfig.model_validate(given)
    except ValidationError as fault:
        raise Problem(400, "invalid_args", describe(fault)) from None


def _check_name(name: str) -> None:
    if len(name) > ENDPOINT_NAME_CHARS_MAX or _NAME.fullmatch(name) is None:
        message = (
            f"endpoint_name: 1 to {ENDPOINT_NAME_CHARS_MAX} letters, digits, `_`, `-`, and single spaces inside "
            f"(got {name[:80]!r})"
        )
        raise Problem(400, "invalid_args", message)
