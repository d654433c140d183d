"""The lists of models of the OpenAI API: of one endpoint, and of every endpoint that a key opens."""

from typing import Any
from urllib.parse import unquote

import msgspec

from engine.api.cors import CorsPolicy
from engine.api.keys import presented, text, unauthorised
from engine.api.openai_api import OpenAIApi
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.http.calls import respond_later
from engine.openapi import openai_shapes
from engine.openapi.declarations import CLIENT, ENDPOINT_NAME, ok
from engine.proxy.errors import PREFIX
from engine.routing.endpoint import Endpoint
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import handles
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle

MODELS = "/v1/models"


class ModelsApi:
    """Handles the `GET` calls about models."""

    def __init__(self, engine: Engine, route_api: RouteApi, openai_api: OpenAIApi, cors: CorsPolicy) -> None:
        self._engine = engine
        self._cors = cors
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
    def all_models(self, request: Request, cycle: ResponseCycle) -> None:
        """The models of every endpoint that the key opens. Some clients ask here, whatever their base address is."""
        opened = [
            endpoint
            for endpoint in self._engine.directory
            if self._route_api.access(request, endpoint, "") is not None
        ]
        if not opened and not any(self._engine.accounts.owner_of(key) for key in presented(request)):
            raise unauthorised()
        data = [_model(endpoint, name) for endpoint in opened for name in _names(endpoint)]
        cycle.respond(200, msgspec.json.encode({"object": "list", "data": data}))

    @handles(
        "GET /openai/{endpoint}/v1/models",
        tag="requests",
        security=CLIENT,
        parameters=(ENDPOINT_NAME,),
        replies=ok(openai_shapes.Models),
        refuses=(401, 404, 503),
        problem=openai_shapes.OpenAIProblem,
    )
    def models(self, request: Request, cycle: ResponseCycle) -> None:
        """The names that the workers' model servers serve; the endpoint's name while they are not known."""
        respond_later(cycle, self._models(request), headers=self._cors.cors_fields(request))

    async def _models(self, request: Request) -> dict[str, Any]:
        endpoint = await self._endpoint_of(request)
        return {"object": "list", "data": [_model(endpoint, name) for name in _names(endpoint)]}

    @handles(
        "GET /openai/{endpoint}/v1/models/{model:.+}",
        tag="requests",
        security=CLIENT,
        parameters=(ENDPOINT_NAME,),
        replies=ok(openai_shapes.Model),
        refuses=(401, 404, 503),
        problem=openai_shapes.OpenAIProblem,
    )
    def model(self, request: Request, cycle: ResponseCycle) -> None:
        """One model. The endpoint's name is an alias of the first."""
        respond_later(cycle, self._model(request), headers=self._cors.cors_fields(request))

    async def _model(self, request: Request) -> dict[str, Any]:
        endpoint = await self._endpoint_of(request)
        name = unquote(text(request.path).partition(MODELS)[2][1:])
        names = _names(endpoint)
        if name not in (*names, endpoint.name):
            known = ", ".join(names)
            message = f"the model {name[:200]!r} is not served by this endpoint; these are: {known[:500]}"
            raise Problem(404, "model_not_found", message)
        return _model(endpoint, name)

    async def _endpoint_of(self, request: Request) -> Endpoint:
        name = unquote(text(request.path[len(PREFIX) :].partition(b"/")[0]))
        return (await self._openai_api.access_of(request, name)).endpoint


def _names(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.served.models or (endpoint.name,)


def _model(endpoint: Endpoint, name: str) -> dict[str, Any]:
    created = int(endpoint.memo.created_at)
    return {"id": name, "object": "model", "created": created, "owned_by": "stoker"}
