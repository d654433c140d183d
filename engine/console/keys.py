"""`/api/v0/endptjobs/{id}/keys/`: the named keys of an endpoint. The text of a key is shown once, when it is created."""

import secrets
import time
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from engine.api.parsing import answer, path_id, read_object
from engine.console.endpoint_workflows import EndpointWorkflows
from engine.engine import Engine
from engine.openapi import common, endpoint_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, KEY_NAME, TEMPORAL, ok
from engine.routing.client_keys import ClientKeyAccount
from engine.routing.endpoint import Endpoint
from stoker_wire.control import EDIT_KEYS
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.http.openapi import Done, handles
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.security.token import CLIENT_KEY_BYTES, client_key_digest, mint_client_key

_LIMITS = ("load_per_second", "dollars_per_day", "priority")


class KeysApi:
    """Create, list, change and revoke named keys."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows) -> None:
        self._engine = engine
        self._workflows = workflows

    @handles(
        "GET /api/v0/endptjobs/{id}/keys/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(endpoint_shapes.Keys),
        refuses=(400, 401, 404, 503),
    )
    async def list_all(self, request: web.Request) -> web.Response:
        """The endpoint's named keys with their limits and today's use, without their texts."""
        endpoint = self._owned_endpoint(request, {})
        return answer({"success": True, "keys": [_row(account) for account in endpoint.client_keys]})

    @handles(
        "POST /api/v0/endptjobs/{id}/keys/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID,),
        body=endpoint_shapes.NewKey,
        replies=ok(endpoint_shapes.KeyMade),
        refuses=(*BODY, *TEMPORAL),
    )
    async def create(self, request: web.Request) -> web.Response:
        """Create a named key. The answer is the only one that shows it. Other engines accept it within two seconds."""
        body = await read_object(request)
        endpoint = self._owned_endpoint(request, body)
        text = mint_client_key(endpoint.id, secrets.token_bytes(CLIENT_KEY_BYTES))
        digest = client_key_digest(text)
        edit = _edit(body, op="create", name=body.get("name"), digest=digest)
        await self._workflows.update(endpoint, EDIT_KEYS, edit.message())
        await self._workflows.wait_until_in_memo(
            endpoint, lambda e: any(account.key.h == digest for account in e.client_keys)
        )
        return answer({"success": True, "name": edit.name, "api_key": text})

    @handles(
        "PUT /api/v0/endptjobs/{id}/keys/{name}/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID, KEY_NAME),
        body=endpoint_shapes.KeyChange,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def change(self, request: web.Request) -> web.Response:
        """Change the given limits; a null removes a limit."""
        body = await read_object(request)
        endpoint = self._owned_endpoint(request, body)
        edit = _edit(body, op="change", name=_known_name(request, endpoint))
        await self._workflows.update(endpoint, EDIT_KEYS, edit.message())
        await self._workflows.wait_until_in_memo(endpoint, lambda e: _has(e, edit.name, edit.given()))
        return answer({"success": True})

    @handles(
        "DELETE /api/v0/endptjobs/{id}/keys/{name}/",
        tag="endpoints",
        security=ACCOUNT,
        parameters=(ID, KEY_NAME),
        body=common.Keyed,
        body_required=False,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke a key: at once on this engine, within two seconds on others. Requests on workers finish."""
        body = await read_object(request)
        endpoint = self._owned_endpoint(request, body)
        edit = _edit({}, op="revoke", name=_known_name(request, endpoint))
        await self._workflows.update(endpoint, EDIT_KEYS, edit.message())
        await self._workflows.wait_until_in_memo(endpoint, lambda e: e.client_keys.named(edit.name) is None)
        return answer({"success": True})

    def _owned_endpoint(self, request: web.Request, body: dict[str, Any]) -> Endpoint:
        owner = self._engine.accounts.authenticate(request, body)
        return self._engine.directory.of_owner(path_id(request), owner)


def _edit(body: dict[str, Any], *, op: str, name: object, digest: str | None = None) -> KeyEdit:
    """The change that a body asks for.

    Raises:
        Problem: 400, with the field.
    """
    limits = {key: value for key, value in body.items() if key not in {"api_key", "client_id", "name"}}
    try:
        edit = KeyEdit.model_validate({"op": op, "name": name, "digest": digest, "limits": limits})
    except ValidationError as fault:
        raise Problem(400, "invalid_args", describe(fault).replace("limits.", "")) from None
    if op == "change" and not edit.given():
        raise Problem(400, "invalid_args", f"give at least one of {', '.join(_LIMITS)}")
    return edit


def _known_name(request: web.Request, endpoint: Endpoint) -> str:
    name = request.match_info["name"]
    if endpoint.client_keys.named(name) is None:
        message = f"there is no key named {name[:80]!r} of this endpoint; list them with `stoker keys list`"
        raise Problem(404, "no_such_key", message)
    return name


def _has(endpoint: Endpoint, name: str, given: dict[str, Any]) -> bool:
    account = endpoint.client_keys.named(name)
    return account is None or all(_limits(account)[key] == value for key, value in given.items())


def _limits(account: ClientKeyAccount) -> dict[str, Any]:
    key = account.key
    return {"load_per_second": key.r, "dollars_per_day": key.b, "priority": key.p}


def _row(account: ClientKeyAccount) -> dict[str, Any]:
    row = {"name": account.key.n, "created_at": account.key.t} | _limits(account)
    return row | {"dollars_today": round(account.dollars_today(time.time()), 6)}
