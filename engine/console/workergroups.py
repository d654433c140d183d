"""`/api/v0/workergroups/` and, for the official CLI, `/api/v0/autojobs/`: workergroups."""

import asyncio
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError

from activities.progress import progress_of
from engine.api.keys import user_id
from engine.api.parsing import answer, path_id, read_object
from engine.console.endpoint_workflows import EndpointWorkflows, new_id
from engine.console.market import MarketApi
from engine.console.offers import OffersApi
from engine.console.workergroup_checks import check
from engine.engine import Engine
from engine.openapi import common, workergroup_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, TEMPORAL, ok
from engine.routing.endpoint import Endpoint
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, rpc_error_text
from stoker_wire.control import QUERY_WORKERGROUPS, REMOVE_WORKERGROUP, SET_WORKERGROUP
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.http.openapi import Done, handles
from stoker_wire.workergroup import Workergroup

_NOT_GROUP = frozenset(
    {
        "api_key",
        "client_id",
        "autoscaler_instance",
        "autojob_id",
        "workergroup_id",
        "id",
        "user_id",
        "endpoint_id",
        "endpoint_name",
        "search_query",
    }
)
_QUERIES_AT_ONCE = 16
_UNSUPPORTED = frozenset({"docker_login_user", "docker_login_pass", "docker_login_repo"})


class WorkergroupsApi:
    """Create, list, show, change, delete."""

    def __init__(
        self, engine: Engine, workflows: EndpointWorkflows, market: MarketApi, offers: OffersApi
    ) -> None:
        self._engine = engine
        self._workflows = workflows
        self._market = market
        self._offers = offers

    @handles(
        "GET /api/v0/workergroups/",
        "GET /api/v0/autojobs/",
        tag="workergroups",
        security=ACCOUNT,
        replies=ok(workergroup_shapes.Workergroups),
        refuses=(*BODY, *TEMPORAL),
    )
    async def list_all(self, request: web.Request) -> web.Response:
        """The account's workergroups."""
        owner = self._engine.accounts.authenticate(request, await read_object(request))
        owned = [each for each in self._engine.directory.owned_by(owner) if each.memo.groups]
        semaphore = asyncio.Semaphore(_QUERIES_AT_ONCE)
        answers = await asyncio.gather(*(self._rows(each, semaphore) for each in owned))
        faults = [each for each in answers if isinstance(each, Exception)]
        if faults and len(faults) == len(owned):
            raise faults[0]  # Temporal or its worker does not answer for any endpoint
        rows: list[dict[str, Any]] = []
        for endpoint, found in zip(owned, answers, strict=True):
            rows += _broken(endpoint, rpc_error_text(found)) if isinstance(found, Exception) else found
        return answer({"success": True, "results": rows})

    async def _rows(
        self, endpoint: Endpoint, semaphore: asyncio.Semaphore
    ) -> list[dict[str, Any]] | Exception:
        """One endpoint's rows. A broken endpoint must not hide the others, so its rows contain Temporal's reason."""
        async with semaphore:
            try:
                return [record(endpoint, group) for group in await self._groups(endpoint)]
            except (*TEMPORAL_FAULTS, Problem, WorkflowQueryFailedError, WorkflowQueryRejectedError) as fault:
                query_fault = fault
            try:
                found = await progress_of(self._engine.client, endpoint.workflow_id)
            except TEMPORAL_FAULTS:
                return query_fault
            return _broken(endpoint, found.fault) if found.fault else query_fault

    @handles(
        "POST /api/v0/workergroups/",
        "POST /api/v0/autojobs/",
        tag="workergroups",
        security=ACCOUNT,
        body=workergroup_shapes.NewWorkergroup,
        replies=ok(workergroup_shapes.WorkergroupMade),
        refuses=(*BODY, *TEMPORAL),
    )
    async def create(self, request: web.Request) -> web.Response:
        """Create a workergroup of an endpoint given by id or name. `warning` says if no offer matches now."""
        body = await read_object(request)
        owner = self._engine.accounts.authenticate(request, body)
        endpoint = await self._endpoint_of(body, owner)
        group = _group({"id": new_id()} | _given(body))
        stored = await self._store(endpoint, group)
        warning = await self._offers.warning_of(group)
        return answer({"success": True, "id": stored["id"]} | ({"warning": warning} if warning else {}))

    @handles(
        "GET /api/v0/workergroups/{id}/",
        "GET /api/v0/autojobs/{id}/",
        tag="workergroups",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(workergroup_shapes.WorkergroupShown),
        refuses=(400, 401, *TEMPORAL),
    )
    async def show(self, request: web.Request) -> web.Response:
        """One workergroup."""
        endpoint, group = await self._owned_group(request)
        return answer({"success": True, "result": record(endpoint, group)})

    @handles(
        "PUT /api/v0/workergroups/{id}/",
        "PUT /api/v0/autojobs/{id}/",
        tag="workergroups",
        security=ACCOUNT,
        parameters=(ID,),
        body=workergroup_shapes.WorkergroupChange,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def change(self, request: web.Request) -> web.Response:
        """Change the given fields; absent and null fields stay. A new template or filter starts a rolling update."""
        body = await read_object(request)
        endpoint, group = await self._owned_group(request, body)
        given = _given(body)
        if "template_hash" in given or "template_id" in given:
            group = group | {"template_hash": None, "template_id": None}
        await self._store(endpoint, _group(group | given))
        return answer({"success": True})

    @handles(
        "DELETE /api/v0/workergroups/{id}/",
        "DELETE /api/v0/autojobs/{id}/",
        tag="workergroups",
        security=ACCOUNT,
        parameters=(ID,),
        body=common.Keyed,
        body_required=False,
        replies=ok(Done),
        refuses=(*BODY, *TEMPORAL),
    )
    async def delete(self, request: web.Request) -> web.Response:
        """Delete the workergroup and release its workers."""
        endpoint, group = await self._owned_group(request, await read_object(request))
        group_id = int(group["id"])
        await self._workflows.update(endpoint, REMOVE_WORKERGROUP, group_id)
        await self._workflows.wait_until_in_memo(endpoint, lambda e: group_id not in e.memo.groups)
        return answer({"success": True})

    async def _store(self, endpoint: Endpoint, group: Workergroup) -> dict[str, Any]:
        await check(group, self._market)
        sent = group.model_dump(mode="json")
        stored: dict[str, Any] = await self._workflows.update(endpoint, SET_WORKERGROUP, sent)
        await self._workflows.wait_until_in_memo(endpoint, lambda e: group.id in e.memo.groups)
        return stored

    async def _groups(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = await self._workflows.query(endpoint, QUERY_WORKERGROUPS)
        return groups

    async def _owned_group(
        self, request: web.Request, body: dict[str, Any] | None = None
    ) -> tuple[Endpoint, dict[str, Any]]:
        owner = self._engine.accounts.authenticate(request, body)
        group_id = path_id(request)
        endpoint = self._engine.directory.of_group(group_id, owner)
        for group in await self._groups(endpoint):
            if group["id"] == group_id:
                return endpoint, group
        raise Problem(404, "no_such_workergroup", f"there is no workergroup {group_id}")

    async def _endpoint_of(self, body: dict[str, Any], owner: str) -> Endpoint:
        directory = self._engine.directory
        endpoint_id, name = body.get("endpoint_id"), body.get("endpoint_name")
        if isinstance(endpoint_id, int) and not isinstance(endpoint_id, bool):
            return directory.of_owner(endpoint_id, owner)
        if isinstance(name, str):
            return await self._engine.find_owned(name, owner)
        raise Problem(400, "invalid_args", "endpoint_id (a number) or endpoint_name is required")


def _broken(endpoint: Endpoint, reason: str) -> list[dict[str, Any]]:
    """The workergroups of an endpoint that does not answer, with the reason."""
    unknown = {"template_hash": None, "template_id": None, "search_params": "", "launch_args": ""}
    message = f"the endpoint's workflow does not answer: {reason}"
    return [
        record(endpoint, {"id": number} | unknown | {"broken": message}) for number in endpoint.memo.groups
    ]


def record(endpoint: Endpoint, group: dict[str, Any]) -> dict[str, Any]:
    """A workergroup in the official format."""
    return group | {
        "endpoint_id": endpoint.id,
        "endpoint_name": endpoint.name,
        "user_id": user_id(endpoint.memo.owner),
        "created_at": endpoint.memo.created_at,
    }


def _given(body: dict[str, Any]) -> dict[str, Any]:
    unsupported = sorted(name for name in _UNSUPPORTED if body.get(name))
    if unsupported:
        reason = "the workflow history would contain a registry password; name the login in the template"
        raise Problem(400, "invalid_args", f"{unsupported[0]}: is not accepted: {reason}")
    ignored = _NOT_GROUP | _UNSUPPORTED
    return {key: value for key, value in body.items() if value is not None and key not in ignored}


def _group(values: dict[str, Any]) -> Workergroup:
    try:
        return Workergroup.model_validate(values)
    except ValidationError as fault:
        raise Problem(400, "invalid_args", describe(fault)) from None
