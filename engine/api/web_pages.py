"""Calls of web pages that an endpoint's `allowed_origins` name (CORS). Without them, pages of other origins may not call."""

from aiohttp import web

from engine.engine import Engine
from engine.proxy.errors import JOBS, PREFIX
from stoker_wire.http1.messages import Header
from stoker_wire.http1.request import Request

_OPEN_TO_PAGES = (PREFIX, JOBS)
_PREFLIGHT_SECONDS = "600"
_CORS_ORIGIN = web.RequestKey("cors_origin", str)


class WebPages:
    """Which pages may call, and what their browsers need to see."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def allows(self, request: web.Request) -> bool:
        """Whether the request comes from a web page that the endpoint's `allowed_origins` name."""
        origin = request.headers.get("Origin")
        if origin is None or not self._allows(request.path, origin):
            return False
        request[_CORS_ORIGIN] = origin
        return True

    def _allows(self, path: str, origin: str) -> bool:
        prefix = next((each for each in _OPEN_TO_PAGES if path.startswith(each)), None)
        if prefix is None:
            return False
        endpoint = self._engine.directory.named(path[len(prefix) :].partition("/")[0])
        # Browsers write an origin in lower case.
        allowed = () if endpoint is None else map(str.lower, endpoint.config.allowed_origins)
        return bool({origin.lower(), "*"} & set(allowed))

    def cors_fields(self, request: Request) -> tuple[Header, ...]:
        """The header fields that let the page read the answer."""
        path = request.path.decode("utf-8", "replace")
        if not path.startswith(_OPEN_TO_PAGES):
            return ()
        vary = (b"vary", b"Origin")
        origin = request.header(b"origin")
        if origin is None or not self._allows(path, origin.decode("latin-1")):
            return (vary,)
        return vary, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*")

    @staticmethod
    async def add_cors(request: web.Request, response: web.StreamResponse) -> None:
        """Let the page read the answer; for `Application.on_response_prepare`."""
        if not request.path.startswith(_OPEN_TO_PAGES):
            return
        # Without the Origin field too, because a cache must not answer a page with what a program got.
        response.headers.add("Vary", "Origin")
        origin = request.get(_CORS_ORIGIN)
        if origin is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "*"


def is_preflight(request: web.Request) -> bool:
    """Whether a browser asks what a page may send."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight_answer(request: web.Request) -> web.Response:
    """The answer to a preflight."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    allowed = {
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": asked or "Authorization, Content-Type",
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=allowed if _CORS_ORIGIN in request else None)
