"""The marketplace at the console's address, where official tools expect offers, templates and instances.

Searches use the deployment's market key. An account sees the instances of its own endpoints, without the values of
their environment, which include the workers' tokens.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import structlog
from aiohttp import web

from engine.api.parsing import answer, path_id, read_object
from engine.engine import Engine
from engine.openapi import market_shapes
from engine.openapi.declarations import ACCOUNT, BODY, ID, MARKET, ok
from market.interface import OfferQuery
from market.query import GrammarError, parse_env
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Parameter, handles
from stoker_wire.parsing.strict_json import parse_json
from stoker_wire.security.loopback import is_loopback_url
from stoker_wire.security.redaction import redact, secret_values

log = structlog.get_logger("engine.market")

_SECONDS_MAX = 30.0
_PAGE = 25
_PAGES_MAX = 400
_HIDDEN = "***"
_FILTERS = Parameter(name="select_filters", about='A JSON object: `{"name": {"eq": "x"}}`')
_CREDENTIALS = frozenset({"api_key", "client_id", "owner"})


class MarketApi:
    """Offers, templates, benchmarks, and the account's own instances."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: aiohttp.ClientSession | None = None

    async def open_session(self, _: web.Application) -> AsyncIterator[None]:
        """Keep the HTTP session open while the application runs."""
        timeout = aiohttp.ClientTimeout(total=_SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            self._session = session
            yield

    @handles(
        "POST /api/v0/bundles/",
        "PUT /api/v0/search/asks/",
        tag="marketplace",
        security=ACCOUNT,
        body=dict[str, Any],
        body_required=False,
        replies=ok(market_shapes.Offers, "Offers"),
        refuses=(*BODY, *MARKET),
    )
    async def search(self, request: web.Request) -> web.Response:
        """Search offers."""
        body = await read_object(request)
        self._engine.accounts.authenticate(request, body)
        return answer(await self.call(request.method, request.path, body=without_key(body)))

    @handles(
        "GET /api/v0/template/",
        tag="marketplace",
        security=ACCOUNT,
        parameters=(_FILTERS,),
        replies=ok(market_shapes.Templates),
        refuses=(401, *MARKET),
    )
    async def templates(self, request: web.Request) -> web.Response:
        """List templates."""
        self._engine.accounts.authenticate(request)
        found = await self.call("GET", request.path, query=without_key(request.query))
        rows = _rows(found, "templates")
        return answer({**found, "templates": [without_secrets(row) for row in rows]})

    @property
    def is_local(self) -> bool:
        """Whether the marketplace is on this machine."""
        return is_loopback_url(self._engine.settings.market_url)

    async def template(self, hash_id: str | None, template_id: int | None) -> dict[str, Any] | None:
        """The template's row; None: the marketplace has none. Raises Problem."""
        wanted = {"hash_id": {"eq": hash_id}} if hash_id is not None else {"id": {"eq": template_id}}
        found = await self.call("GET", "/api/v0/template/", query={"select_filters": json.dumps(wanted)})
        rows = _rows(found, "templates")
        return rows[0] if rows else None

    async def has_template(self, hash_id: str | None, template_id: int | None) -> bool | None:
        """Whether the marketplace has the template; None: the marketplace does not answer."""
        try:
            return await self.template(hash_id, template_id) is not None
        except Problem:
            return None

    async def find_offers(self, query: OfferQuery, limit: int) -> list[dict[str, Any]]:
        """The rows of a search. Raises Problem."""
        body = {
            **query.filters,
            "order": [list(pair) for pair in query.order],
            "limit": limit,
            "type": query.type,
            "allocated_storage": query.disk_gb,
        }
        return _rows(await self.call("POST", "/api/v0/bundles/", body=body), "offers")

    @handles(
        "GET /api/v0/benchmarks",
        "GET /api/v0/benchmarks/",
        tag="marketplace",
        security=ACCOUNT,
        replies=ok(market_shapes.Benchmarks),
        refuses=(401, *MARKET),
    )
    async def benchmarks(self, request: web.Request) -> web.Response:
        """Benchmarks of the marketplace; empty if it has no such table."""
        self._engine.accounts.authenticate(request)
        try:
            found = await self.call("GET", "/api/v0/benchmarks", query=without_key(request.query))
        except Problem as problem:
            if problem.status != 404:
                raise
            found = {"benchmarks": [], "next_token": None}
        return answer(found)

    @handles(
        "GET /api/v0/instances/{id}/",
        tag="marketplace",
        security=ACCOUNT,
        parameters=(ID,),
        replies=ok(market_shapes.OneInstance),
        refuses=(401, *MARKET),
    )
    async def instance(self, request: web.Request) -> web.Response:
        """One instance of the account, or null."""
        owner = self._engine.accounts.authenticate(request)
        number = path_id(request)
        if number not in self._own_instance_ids(owner):
            return answer({"instances": None})
        found = await self.call("GET", f"/api/v0/instances/{number}/", query={"owner": "me"})
        row = found.get("instances")
        return answer({"instances": without_environment(row) if isinstance(row, dict) else None})

    @handles(
        "GET /api/v0/instances/",
        "GET /api/v1/instances/",
        tag="marketplace",
        security=ACCOUNT,
        replies=ok(market_shapes.Instances),
        refuses=(*BODY, *MARKET),
    )
    async def instances(self, request: web.Request) -> web.Response:
        """All instances of the account."""
        owner = self._engine.accounts.authenticate(request, await read_object(request))
        mine = self._own_instance_ids(owner)
        rows = (
            [without_environment(row) for row in await self._all_instances() if row.get("id") in mine]
            if mine
            else []
        )
        labels: dict[str, int] = {}
        for row in rows:
            labels[row.get("label") or ""] = labels.get(row.get("label") or "", 0) + 1
        return answer(
            {
                "success": True,
                "instances": rows,
                "next_token": None,
                "total_instances": len(rows),
                "label_counts": labels,
            }
        )

    def _own_instance_ids(self, owner: str) -> set[int]:
        return {
            worker.instance_id
            for endpoint in self._engine.directory.owned_by(owner)
            for worker in endpoint.workers.values()
            if worker.listed and worker.instance_id
        }

    async def _all_instances(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        query = {"limit": str(_PAGE)}
        for _ in range(_PAGES_MAX):
            page = await self.call("GET", "/api/v1/instances/", query=query)
            rows += _rows(page, "instances")
            token = page.get("next_token")
            if not token:
                break
            query = {"limit": str(_PAGE), "after_token": str(token)}
        else:
            raise Problem(
                502, "market_refused", f"the marketplace's list did not end within {_PAGES_MAX} pages"
            )
        return rows

    async def call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The marketplace's answer, with the deployment's key. Raises Problem."""
        settings = self._engine.settings
        if not settings.market_url or self._session is None:
            raise Problem(404, "no_market", "this engine has no marketplace; set market_url")
        headers = {"Authorization": f"Bearer {settings.market_key}"}
        try:
            async with self._session.request(
                method,
                settings.market_url + path,
                json=body,
                params=query,
                headers=headers,
                allow_redirects=False,
            ) as reply:
                message = parse_json(await reply.read())
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as fault:
            log.warning("market_unreachable", path=path, error=type(fault).__name__)
            raise Problem(
                503,
                "market_unavailable",
                "the marketplace did not answer; try again",
                headers={"Retry-After": "2"},
            ) from None
        if status != 200 or not isinstance(message, dict):
            code = message.get("error") if isinstance(message, dict) else None
            message = message.get("msg") if isinstance(message, dict) else None
            # A 401 of the marketplace concerns the deployment's key, not the caller's.
            status = 502 if status in (401, 403) or status >= 500 or status < 400 else status
            raise Problem(
                status, str(code or "market_refused"), str(message or "the marketplace refused the call")
            )
        return message


def _rows(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list in an answer. A missing list is an error, not an empty list.

    Raises:
        Problem: 502.
    """
    rows = found.get(key)
    if not isinstance(rows, list):
        raise Problem(502, "market_refused", f"the marketplace answered without {key!r}; check its address")
    return [row for row in rows if isinstance(row, dict)]


def without_secrets(template: dict[str, Any]) -> dict[str, Any]:
    """The template without the values of secret variables, because every account may read it."""
    env = template.get("env")
    if not isinstance(env, str) or not env:
        return template
    try:
        values = secret_values(parse_env(env))
    except GrammarError:
        return {**template, "env": _HIDDEN}
    return {**template, "env": redact(env, values)}


def without_environment(row: dict[str, Any]) -> dict[str, Any]:
    """The instance without its environment's values and its start command."""
    env = row.get("extra_env")
    pairs = [[str(pair[0]), _HIDDEN] for pair in env if pair] if isinstance(env, list) else []
    return {**row, "extra_env": pairs, "onstart": None, "image_args": [], "instance_api_key": None}


def without_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without the caller's key."""
    return {name: value for name, value in values.items() if name not in _CREDENTIALS}
