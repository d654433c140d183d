"""`GET /openapi.json`: the engine's calls as an OpenAPI 3.1 document."""

from typing import Any

from aiohttp import web

from engine.api.parsing import answer
from engine.openapi.declarations import SECURITY, ok
from stoker_wire.http.openapi import document, handles
from webserver.routes import operations_of_app

_ABOUT = (
    "Routes requests to workers, receives their reports, and is the console of endpoints and workergroups. "
    "Every refusal is a problem: a code for programs and a message for people."
)
VERSION = "0.2.0"
_EVERYWHERE = (400, 403, 408, 415, 431, 503)


def build_document(app: web.Application) -> dict[str, Any]:
    """The document of the application's declared calls.

    Raises:
        LookupError: a route whose handler declares nothing.
    """
    return document(
        "stoker engine", VERSION, _ABOUT, operations_of_app(app), security=SECURITY, everywhere=_EVERYWHERE
    )


class OpenApiApi:
    """Serves the document without authentication. It is built at the first request."""

    def __init__(self) -> None:
        self._document: dict[str, Any] | None = None

    @handles("GET /openapi.json", tag="health", replies=ok(dict[str, Any], "This document"))
    async def handle(self, request: web.Request) -> web.Response:
        """This document."""
        if self._document is None:
            self._document = build_document(request.app)
        return answer(self._document)
