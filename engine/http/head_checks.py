"""Refuses heads that readers of HTTP interpret differently, and requests of web pages."""

from collections.abc import Collection

from engine.api.cors import CorsPolicy
from engine.api.keys import text
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.request import Request
from stoker_wire.security.cross_origin import cross_origin_problem

_CHECKED = frozenset(
    {b"host", b"authorization", b"origin", b"sec-fetch-site", b"content-encoding", b"upgrade"}
)
_CLOSE = {"Connection": "close"}


class HeadChecks:
    """The checks of every request; the HTTP server has checked how the request is framed."""

    def __init__(self, names: Collection[str], cors: CorsPolicy, websockets: tuple[bytes, ...]) -> None:
        """
        Args:
            names: the host names under which clients reach this engine, in lower case.
            websockets: beginnings of the paths that take WebSockets.
        """
        self._names = names
        self._cors = cors
        self._websockets = websockets

    def check(self, request: Request) -> None:
        """Check a request.

        Raises:
            Problem: the refusal.
        """
        found: dict[bytes, bytes] = {}
        for name, value in request.headers:
            if name in _CHECKED:
                if name in found and name != b"upgrade":  # of several, two readers could use different ones
                    reason = f"a request has one {name.decode().title()} header, this one has several"
                    raise Problem(400, "header_repeated", reason, headers=_CLOSE)
                found[name] = value
        coding = found.get(b"content-encoding")
        if coding is not None and coding.strip().lower() != b"identity":
            reason = "compressed bodies are not accepted: send the body without Content-Encoding"
            raise Problem(415, "content_encoding_unsupported", reason, headers=_CLOSE)
        if b"websocket" in found.get(b"upgrade", b"").lower() and not self._takes_websocket(request):
            raise Problem(400, "upgrade_unsupported", "this path takes no WebSocket", headers=_CLOSE)
        origin, site = found.get(b"origin"), found.get(b"sec-fetch-site")
        if origin is not None and self._cors.allows(request.path, text(origin)):
            origin = site = None
        refused = cross_origin_problem(
            request.method.decode(),
            text(found.get(b"host", b"")),
            None if origin is None else text(origin),
            None if site is None else text(site),
            names=self._names,
        )
        if refused is not None:
            raise refused

    def _takes_websocket(self, request: Request) -> bool:
        return request.websocket and request.path.startswith(self._websockets)
