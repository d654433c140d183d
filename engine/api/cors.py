"""Calls of web pages that an endpoint's `allowed_origins` name (CORS). Without them, pages of other origins may not call."""

from engine.api.keys import text
from engine.engine import Engine
from engine.proxy.errors import JOBS, PREFIX
from stoker_wire.http1.messages import Header
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle

_OPEN_TO_PAGES = (PREFIX.encode(), JOBS.encode())
_PREFLIGHT_SECONDS = b"600"
_VARY = ((b"vary", b"Origin"),)
"""Without the Origin field too, because a cache must not answer a page with what a program got."""


class CorsPolicy:
    """Which pages may call, and what their browsers need to see."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def allows(self, path: bytes, origin: str) -> bool:
        """Whether a page of this origin is among the `allowed_origins` of the path's endpoint."""
        prefix = next((each for each in _OPEN_TO_PAGES if path.startswith(each)), None)
        if prefix is None:
            return False
        endpoint = self._engine.directory.named(text(path[len(prefix) :].partition(b"/")[0]))
        # Browsers write an origin in lower case.
        allowed = () if endpoint is None else map(str.lower, endpoint.config.allowed_origins)
        return bool({origin.lower(), "*"} & set(allowed))

    def cors_fields(self, request: Request) -> tuple[Header, ...]:
        """The header fields that let the page read the answer."""
        if not request.path.startswith(_OPEN_TO_PAGES):
            return ()
        origin = request.header(b"origin")
        if origin is None or not self.allows(request.path, text(origin)):
            return _VARY
        return *_VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*")

    def answer_preflight(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer a preflight."""
        cors = self.cors_fields(request)
        asked = request.header(b"access-control-request-headers")
        allowed: tuple[Header, ...] = (
            (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
            (b"access-control-allow-headers", asked or b"Authorization, Content-Type"),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
        )
        fields = (*cors, *allowed) if len(cors) > len(_VARY) else cors
        cycle.respond(204, b"", content_type=None, headers=fields)


def is_preflight(request: Request) -> bool:
    """Whether a browser asks what a page may send."""
    return request.method == b"OPTIONS" and request.header(b"access-control-request-method") is not None
