"""`POST` and `DELETE /api/v0/template/`: templates of the deployment's marketplace account."""

import asyncio
from typing import Any

from aiohttp import web
from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError

from engine.api.parsing import answer, read_object
from engine.console.endpoint_workflows import EndpointWorkflows
from engine.console.market import MarketApi, without_key, without_secrets
from engine.engine import Engine
from engine.openapi import market_shapes
from engine.openapi.declarations import ACCOUNT, BODY, MARKET, ok
from engine.routing.endpoint import Endpoint
from engine.temporal.rpc_errors import TEMPORAL_FAULTS
from market.query import GrammarError, parse_env
from stoker_wire.control import QUERY_WORKERGROUPS
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Done, handles
from stoker_wire.security.redaction import REFERENCE, plaintext_secrets

_QUERIES_AT_ONCE = 16
_PATH = "/api/v0/template/"


class TemplatesApi:
    """Creates templates, and deletes those that no workergroup uses."""

    def __init__(self, engine: Engine, workflows: EndpointWorkflows, market: MarketApi) -> None:
        self._engine = engine
        self._workflows = workflows
        self._market = market

    @handles(
        f"POST {_PATH}",
        tag="marketplace",
        security=ACCOUNT,
        body=market_shapes.NewTemplate,
        replies=ok(market_shapes.TemplateMade),
        refuses=(*BODY, *MARKET),
    )
    async def create(self, request: web.Request) -> web.Response:
        """Create a template. Its environment may refer to secrets, and may not contain them."""
        body = await read_object(request)
        self._engine.accounts.authenticate(request, body)
        _check_environment(body.get("env"))
        made = await self._market.call("POST", _PATH, body=without_key(body))
        template = made.get("template")
        if not isinstance(template, dict):
            raise Problem(502, "market_refused", "the marketplace created a template but did not return it")
        return answer({"success": True, "template": without_secrets(template)})

    @handles(
        f"DELETE {_PATH}",
        tag="marketplace",
        security=ACCOUNT,
        body=market_shapes.TemplateNamed,
        replies=ok(Done),
        refuses=(*BODY, 409, *MARKET),
    )
    async def delete(self, request: web.Request) -> web.Response:
        """Delete a template, given by `hash_id` or `template_id`, that no workergroup uses."""
        body = await read_object(request)
        self._engine.accounts.authenticate(request, body)
        hash_id, number = body.get("hash_id"), body.get("template_id")
        if hash_id is None and number is None:
            raise Problem(400, "invalid_args", "hash_id or template_id is required")
        row = await self._market.template(hash_id, number)
        if row is None:
            raise Problem(
                404, "no_such_template", "the marketplace has no such template; see GET /api/v0/template/"
            )
        named = {"template_hash": row.get("hash_id"), "template_id": row.get("id")}
        if count := await self._uses(named):
            raise Problem(
                409, "template_in_use", f"{count} workergroups use this template; change or delete them first"
            )
        await self._market.call(
            "DELETE", _PATH, body={"hash_id": row.get("hash_id"), "template_id": row.get("id")}
        )
        return answer({"success": True})

    async def _uses(self, named: dict[str, Any]) -> int:
        """How many workergroups of all accounts use the template."""
        slots = asyncio.Semaphore(_QUERIES_AT_ONCE)
        self._engine.directory.require_read()
        endpoints = [each for each in self._engine.directory if each.memo.groups]

        async def count(endpoint: Endpoint) -> int:
            async with slots:
                groups: list[dict[str, Any]] = await self._workflows.query(endpoint, QUERY_WORKERGROUPS)
            return sum(
                any(
                    group.get(field) is not None and group.get(field) == wanted
                    for field, wanted in named.items()
                )
                for group in groups
            )

        try:
            return sum(await asyncio.gather(*(count(each) for each in endpoints)))
        except (*TEMPORAL_FAULTS, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            raise Problem(
                503,
                "temporal_unavailable",
                "cannot check whether a workergroup uses this template, because its workflow does not answer; try again",
                headers={"Retry-After": "2"},
            ) from None


def _check_environment(env: Any) -> None:
    """Refuse secrets in plain text, because every account of the deployment can read the templates."""
    if env is None:
        return
    if isinstance(env, dict):
        variables = {str(name): str(value) for name, value in env.items()}
    else:
        try:
            variables = parse_env(str(env))
        except GrammarError as fault:
            raise Problem(400, "invalid_args", f"env: {fault}") from None
    if plain := plaintext_secrets(variables):
        name = plain[0]
        raise Problem(
            400,
            "plain_secret",
            f"env: {name} looks like a secret in plain text; set STOKER_SECRET_{name} for the deployment and write "
            f"{name}={REFERENCE}{name}",
        )
