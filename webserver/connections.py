"""An aiohttp server with limits on connections, which clients can open without a key.

The header of a request must arrive within a limited time. The number of connections is limited, and an idle connection
is closed in favour of a new one. Malformed HTTP is answered with a problem in JSON that repeats no input.
"""

import asyncio
import contextlib
import json
import logging
import resource
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from stoker_wire.errors.problem import Problem

log = structlog.get_logger("webserver")

_RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG = 1024
_CHECK_SECONDS = 1.0
_LINGER_SECONDS = 2.0
"""How long a refused client may still send. Closing at once could reset the connection before it reads the response."""
RESERVED_FILES = 256
"""Open files kept for connections to Temporal, workers and the marketplace, and for files on disk."""

_aiohttp_log = logging.getLogger("webserver.aiohttp")
_aiohttp_log.addHandler(logging.NullHandler())
_aiohttp_log.propagate = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits on one connection, and on all connections together."""

    connections_max: int = 40_000
    """The process's limit of open files applies if it is lower."""
    head_seconds_max: float = 10.0
    """From the first byte of a request to the end of its header fields."""
    idle_seconds_max: float = 75.0
    """Between two requests of a connection, and before its first."""
    head_line_bytes_max: int = 8190
    head_fields_max: int = 64


class LimitedConnection(web.RequestHandler):
    """One connection, with its state: busy, idle, or receiving a request's head."""

    __slots__ = ("_busy", "_closing", "_limiter", "head_since")

    def __init__(self, limiter: "ConnectionLimiter", server: web.Server) -> None:
        limits = limiter.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds_max,
            access_log=None,  # type: ignore[arg-type]
            logger=_aiohttp_log,
            max_line_size=limits.head_line_bytes_max,
            max_field_size=limits.head_line_bytes_max,
            max_headers=limits.head_fields_max,
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
        )
        self._limiter = limiter
        self._busy = 0
        self._closing = False
        self.head_since = 0.0
        """When the first byte of an incomplete request head arrived (monotonic); 0: no head is pending."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once if the limiter evicted the connection before it was made."""
        super().connection_made(transport)
        if self._closing:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection from the limiter."""
        super().connection_lost(exc)
        self._limiter.remove(self)

    def data_received(self, data: bytes) -> None:
        """Record when a request head begins."""
        if not self._busy and not self.head_since:
            self.head_since = time.monotonic()
        super().data_received(data)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While a request is handled, neither the idle limit nor the head limit applies."""
        self._busy += 1
        self.head_since = 0.0
        self._limiter.idle.pop(self, None)
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy and self.transport is not None:
                self._limiter.idle[self] = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer malformed HTTP with a problem; aiohttp's own text would repeat the input."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, it cannot be replaced by a problem")
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
            limits = self._limiter.limits
            limit = f"{limits.head_fields_max} fields or a line over {limits.head_line_bytes_max} bytes"
            problem = Problem(431, "head_too_large", f"the request's head has over {limit}")
        elif status < 500:
            problem = Problem(400, "malformed_http", "this is not a valid HTTP/1.1 request")
        else:
            log.error("request_failed", error=type(exc).__name__)
            problem = Problem(500, "internal_error", "the request failed; see the log of this process")
        return _response(problem)

    def is_head_overdue(self, now: float) -> bool:
        """Whether the head of the current request exceeds its time limit."""
        return bool(self.head_since) and now - self.head_since > self._limiter.limits.head_seconds_max

    def evict(self, problem: Problem | None = None) -> None:
        """Close the connection; `problem` is sent first if a request head was pending."""
        self._closing = True
        self._limiter.idle.pop(self, None)
        if self.transport is not None and problem is not None:
            self.transport.write(_raw_response(problem))
        self.force_close()


class RefusedConnection(asyncio.Protocol):
    """The protocol of a connection over the limit: it sends a 503 and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the problem and close."""
        writer = cast("asyncio.WriteTransport", transport)  # uvloop's class is not a subclass
        reason = "too many connections are open, and all of them are busy; try again"
        writer.write(
            _raw_response(Problem(503, "too_many_connections", reason, headers={"Retry-After": "1"}))
        )
        transport.close()


class ConnectionLimiter:
    """Accepts connections up to the limit. At the limit, a new connection replaces the one that idled longest."""

    def __init__(self, server: web.Server, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.connections_max = connections_possible(limits)
        self.idle: OrderedDict[LimitedConnection, None] = OrderedDict()
        """Idle connections, the longest idle first."""
        self._server = server
        self._open: set[LimitedConnection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ConnectionLimiter {len(self._open)} of {self.connections_max} connections, {len(self.idle)} idle>"

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def admit(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._open) >= self.connections_max:
            if not self.idle:
                return RefusedConnection()
            oldest = next(iter(self.idle))
            oldest.evict()
            self._open.discard(oldest)
        connection = LimitedConnection(self, self._server)
        self._open.add(connection)
        # Idle from the start: in a burst, several connections are accepted before the first one gets an event.
        self.idle[connection] = None
        return connection

    def remove(self, connection: LimitedConnection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)
        self.idle.pop(connection, None)

    def start(self) -> None:
        """Start the periodic check of request heads."""
        self._timer = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_heads)

    def close(self) -> None:
        """Stop the periodic check."""
        if self._timer is not None:
            self._timer.cancel()

    def _check_heads(self) -> None:
        now = time.monotonic()
        for connection in [one for one in self.idle if one.is_head_overdue(now)]:
            reason = "the head of the request arrived too slowly; send it at once"
            connection.evict(Problem(408, "request_timeout", reason))
        self.start()


def open_files_max() -> int:
    """The number of files and sockets that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_possible(limits: ConnectionLimits) -> int:
    """The limit of connections, or the number that the limit of open files allows."""
    possible = min(limits.connections_max, max(16, open_files_max() - RESERVED_FILES))
    if possible < limits.connections_max:
        log.warning(
            "connections_limited_by_open_files", connections_max=possible, configured=limits.connections_max
        )
    return possible


async def listen(
    runner: web.AppRunner,
    host: str | None = None,
    port: int | None = None,
    *,
    sock: Any = None,
    limits: ConnectionLimits | None = None,
) -> tuple[asyncio.Server, ConnectionLimiter]:
    """Listen with a runner after its `setup()`. Close both results: the server first, the limiter last.

    Raises:
        OSError: the address is in use or does not belong to this machine.
    """
    if runner.server is None:
        raise RuntimeError("call runner.setup() first")
    runner.server.request_handler = _refuse_unknown_expectation(runner.server.request_handler)
    limiter = ConnectionLimiter(runner.server, limits or ConnectionLimits())
    address: dict[str, Any] = {"host": host, "port": port} if sock is None else {"sock": sock}
    server = await asyncio.get_running_loop().create_server(limiter.admit, backlog=_BACKLOG, **address)
    limiter.start()
    return server, limiter


def _response(problem: Problem) -> web.Response:
    """An answer after which the connection ends, because a body may follow that was not read."""
    body = json.dumps(problem.body()).encode()
    response = web.Response(status=problem.status, body=body, content_type="application/json")
    response.force_close()
    return response


def _refuse_unknown_expectation(handler: _RequestHandler) -> _RequestHandler:
    """aiohttp answers an unknown Expect before its middlewares, in plain text that repeats the input."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "100-continue").lower() == "100-continue":
            return await handler(request)
        return _response(
            Problem(417, "expectation_unknown", "the only expectation supported is 100-continue")
        )

    return handle


def _raw_response(problem: Problem) -> bytes:
    body = json.dumps(problem.body()).encode()
    lines = [
        f"HTTP/1.1 {problem.status} {_REASONS[problem.status]}",
        "Content-Type: application/json",
        *(f"{name}: {value}" for name, value in problem.headers.items()),
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_REASONS = {408: "Request Timeout", 503: "Service Unavailable"}
