"""`GET /openapi.json`: the marketplace's calls as an OpenAPI 3.1 document."""

from typing import Any

from aiohttp import web

from hosts.api.http import json_response
from hosts.api.shapes import ok
from stoker_wire.http.openapi import document, handles
from webserver.routes import operations_of_app

_ABOUT = "Rents the machines of this host: the marketplace's REST API over local processes."
VERSION = "0.2.0"
_EVERYWHERE = (400, 403, 408, 415, 431, 503)

SECURITY: dict[str, dict[str, str]] = {
    "key": {"type": "http", "scheme": "bearer", "description": "The market's key, or an instance's own"},
    "keyInQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
}


@handles("GET /openapi.json", replies=ok(dict[str, Any], "This document"))
async def openapi(request: web.Request) -> web.Response:
    """This OpenAPI document."""
    return json_response(build_document(request.app))


def build_document(app: web.Application) -> dict[str, Any]:
    """The document of the application's declared calls.

    Raises:
        LookupError: a route whose handler declares nothing.
    """
    return document(
        "stoker host marketplace",
        VERSION,
        _ABOUT,
        operations_of_app(app),
        security=SECURITY,
        everywhere=_EVERYWHERE,
    )
