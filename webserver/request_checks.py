"""Middlewares that refuse ambiguous requests, oversized bodies and requests of web pages.

They raise `Problem`, so they go inside the middleware that turns problems into responses.
"""

from collections.abc import Awaitable, Callable, Collection

from aiohttp import HttpVersion10, web
from aiohttp.typedefs import Middleware

from stoker_wire.errors.problem import Problem
from stoker_wire.security.cross_origin import cross_origin_problem
from webserver.connections import LimitedConnection

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SINGLE_FIELDS = ("Host", "Authorization")
"""Header fields that may occur once: of several values, two readers could use different ones."""
_CLOSE = {"Connection": "close"}


@web.middleware
async def reject_ambiguous_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse WebSocket, unusual transfer codings, compressed bodies and repeated header fields.

    HTTP readers interpret these differently, which allows request smuggling. The middleware also marks the connection
    as busy while the request runs, and refuses bodies over the application's limit.
    """
    connection = request.protocol
    if not isinstance(connection, LimitedConnection):
        return await _check_and_handle(request, handler)
    with connection.busy():
        return await _check_and_handle(request, handler)


async def _check_and_handle(request: web.Request, handler: Handler) -> web.StreamResponse:
    _reject_ambiguous_head(request)
    reject_oversized_body(request, request.client_max_size)
    return await handler(request)


def reject_oversized_body(request: web.Request, bytes_max: int) -> None:
    """Check the Content-Length before the body is read.

    Raises:
        Problem: 413, the body is larger than `bytes_max`.
    """
    declared = request.content_length
    if declared is not None and declared > bytes_max:
        reason = f"the body is larger than the {bytes_max} bytes that this path takes"
        raise Problem(413, "body_too_large", reason, headers=_CLOSE)


def reject_cross_origin(names: Collection[str] = ()) -> Middleware:
    """A middleware that refuses requests that a web page of another origin sends.

    Args:
        names: the host names under which clients reach this server, in lower case. IP addresses are always accepted.
    """

    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        fields = request.headers
        origin, site = fields.get("Origin"), fields.get("Sec-Fetch-Site")
        problem = cross_origin_problem(request.method, fields.get("Host", ""), origin, site, names=names)
        if problem is not None:
            raise problem
        return await handler(request)

    return check_origin


def _reject_ambiguous_head(request: web.Request) -> None:
    headers = request.headers
    if request.version < HttpVersion10:  # no header, so none of the checks below applies
        raise Problem(505, "http_version_unsupported", "this server speaks HTTP/1.1, not 0.9", headers=_CLOSE)
    for name in _SINGLE_FIELDS:
        if len(headers.getall(name, ())) > 1:
            reason = f"a request has one {name} header, this one has several"
            raise Problem(400, "header_repeated", reason, headers=_CLOSE)
    # Other offers are ignored (RFC 9110 §7.8). After an offer of WebSocket, aiohttp reads frames instead of requests.
    if "websocket" in headers.get("Upgrade", "").lower() or request.method == "CONNECT":
        raise Problem(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only", headers=_CLOSE)
    transfer_coding = headers.get("Transfer-Encoding")
    if transfer_coding is not None and transfer_coding.strip().lower() != "chunked":
        reason = "the only Transfer-Encoding accepted is chunked"
        raise Problem(400, "malformed_http", reason, headers=_CLOSE)
    content_coding = headers.get("Content-Encoding")
    if content_coding is not None and content_coding.strip().lower() != "identity":
        reason = "compressed bodies are not accepted: send the body without Content-Encoding"
        raise Problem(415, "content_encoding_unsupported", reason, headers=_CLOSE)
