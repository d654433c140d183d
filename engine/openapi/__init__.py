"""`GET /openapi.json`: the engine's calls as an OpenAPI 3.1 document, made once, when it is first asked for."""

from typing import Any

from aiohttp import web

from engine.api.parsing import answer
from engine.openapi.operations import OPERATIONS, SECURITY
from stoker_wire.openapi import document, told

_ABOUT = (
    "Routes requests to workers, hears their reports, and is the console of endpoints and workergroups. "
    "Every refusal is a problem: a code for programs and a sentence for people."
)
VERSION = "0.2.0"
_EVERYWHERE = (400, 408, 415, 431, 503)


def made(app: web.Application) -> dict[str, Any]:
    """The document. Raises KeyError for a route that the table does not have."""
    routes = [
        (route.method, route.resource.canonical, route.handler.__doc__)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    ]
    return document(
        "stoker engine", VERSION, _ABOUT, told(OPERATIONS, routes), security=SECURITY, everywhere=_EVERYWHERE
    )


class OpenApiDocument:
    """Serves it; open to everyone, as the source is."""

    def __init__(self) -> None:
        self._made: dict[str, Any] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """This document."""
        if self._made is None:
            self._made = made(request.app)
        return answer(self._made)
