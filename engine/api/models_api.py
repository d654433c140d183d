"""The lists of models of the OpenAI API: of one endpoint, and of every endpoint that a key opens."""

from typing import Any

from aiohttp import web

from engine.api.keys import presented, unauthorised
from engine.api.openai_api import OpenAIApi
from engine.api.parsing import answer
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.openapi import openai_shapes
from engine.openapi.declarations import CLIENT, ENDPOINT_NAME, ok
from engine.routing.endpoint import Endpoint
from stoker_wire.http.openapi import handles
from stoker_wire.problem import Problem


class ModelsApi:
    """Handles the `GET` calls about models."""

    def __init__(self, engine: Engine, route_api: RouteApi, openai_api: OpenAIApi) -> None:
        self._engine = engine
        self._route_api = route_api
        self._openai_api = openai_api

    @handles(
        "GET /v1/models",
        tag="requests",
        security=CLIENT,
        replies=ok(openai_shapes.Models),
        refuses=(401,),
        problem=openai_shapes.OpenAIProblem,
    )
    async def all_models(self, request: web.Request) -> web.Response:
        """The models of every endpoint that the key opens. Some clients ask here, whatever their base address is."""
        opened = [
            endpoint
            for endpoint in self._engine.directory
            if self._route_api.access(request, endpoint, "") is not None
        ]
        if not opened and not any(self._engine.accounts.owner_of(key) for key in presented(request)):
            raise unauthorised()
        return answer(
            {
                "object": "list",
                "data": [_model(endpoint, name) for endpoint in opened for name in _names(endpoint)],
            }
        )

    @handles(
        "GET /openai/{endpoint}/v1/models",
        tag="requests",
        security=CLIENT,
        parameters=(ENDPOINT_NAME,),
        replies=ok(openai_shapes.Models),
        refuses=(401, 404, 503),
        problem=openai_shapes.OpenAIProblem,
    )
    async def models(self, request: web.Request) -> web.Response:
        """The names that the workers' model servers serve; the endpoint's name while they are not known."""
        endpoint, _ = await self._openai_api.access_of(request)
        return answer({"object": "list", "data": [_model(endpoint, name) for name in _names(endpoint)]})

    @handles(
        "GET /openai/{endpoint}/v1/models/{model:.+}",
        tag="requests",
        security=CLIENT,
        parameters=(ENDPOINT_NAME,),
        replies=ok(openai_shapes.Model),
        refuses=(401, 404, 503),
        problem=openai_shapes.OpenAIProblem,
    )
    async def model(self, request: web.Request) -> web.Response:
        """One model. The endpoint's name is an alias of the first."""
        endpoint, _ = await self._openai_api.access_of(request)
        name = request.match_info["model"]
        names = _names(endpoint)
        if name not in (*names, endpoint.name):
            known = ", ".join(names)
            message = f"the model {name[:200]!r} is not served by this endpoint; these are: {known[:500]}"
            raise Problem(404, "model_not_found", message)
        return answer(_model(endpoint, name))


def _names(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.served.models or (endpoint.name,)


def _model(endpoint: Endpoint, name: str) -> dict[str, Any]:
    created = int(endpoint.memo.created_at)
    return {"id": name, "object": "model", "created": created, "owned_by": "stoker"}
