"""An aiohttp application behind limits that hold against strangers, who need no key to open connections.

Each connection has a bounded time for the head of a request; their number is bounded, and one that only idles gives
way to a new one; what this program does not speak (upgrades, other transfer codings, packed bodies) is refused before
anything reads it; and every refusal is a problem in JSON that repeats nothing of what was sent.
"""

import asyncio
import contextlib
import json
import logging
import resource
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.typedefs import Middleware

from stoker_wire.problem import Problem
from stoker_wire.security import browser

log = structlog.get_logger("listening")

_BACKLOG = 1024
_TICK_SECONDS = 1.0
_LINGER_SECONDS = 2.0
"""How long a refused peer may go on sending: closing at once would destroy the answer on its way."""
FILES_SPARED = 256
"""Of the files that the process may open: for connections to Temporal, to workers and to the marketplace, and for disks."""

LARGEST_BODY: web.AppKey[int] = web.AppKey("largest_body", int)
"""Bytes: for an application with a path that takes more than its `client_max_size`."""

_ONCE = ("Host", "Authorization")
"""Two readers could take different ones of several."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_quiet = logging.getLogger("listening.aiohttp")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds on what one peer, or all together, may hold."""

    connections_max: int = 40_000
    """The process's limit of open files may be lower, and then counts."""
    head_seconds_max: float = 10.0
    """From the first byte of a request to the end of its header fields."""
    idle_seconds_max: float = 75.0
    """Between two requests of a connection, and before its first."""
    head_line_bytes_max: int = 8190
    head_fields_max: int = 64


class GuardedConnection(web.RequestHandler):
    """One connection; it knows whether it works, idles, or sends a head."""

    __slots__ = ("_door", "_turned_out", "_working", "head_since")

    def __init__(self, door: "GuardedListener", server: web.Server) -> None:
        limits = door.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds_max,
            access_log=None,  # type: ignore[arg-type]
            logger=_quiet,
            max_line_size=limits.head_line_bytes_max,
            max_field_size=limits.head_line_bytes_max,
            max_headers=limits.head_fields_max,
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
        )
        self._door = door
        self._working = 0
        self._turned_out = False
        self.head_since = 0.0
        """When the first byte of a request came that is not there as a whole yet; 0: there is none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        super().connection_made(transport)
        if self._turned_out:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone."""
        super().connection_lost(exc)
        self._door.gone(self)

    def data_received(self, data: bytes) -> None:
        """Note when a head begins; aiohttp does the rest."""
        if not self._working and not self.head_since:
            self.head_since = time.monotonic()
        super().data_received(data)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While a request is answered, the connection neither idles nor is late."""
        self._working += 1
        self.head_since = 0.0
        self._door.idle.pop(self, None)
        try:
            yield
        finally:
            self._working -= 1
            if not self._working and self.transport is not None:
                self._door.idle[self] = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no proper HTTP, as a problem; aiohttp's own text would repeat what was sent."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, and cannot become a problem any more")
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
            limits = self._door.limits
            most = f"{limits.head_fields_max} fields or a line over {limits.head_line_bytes_max} bytes"
            problem = Problem(431, "head_too_large", f"the request's head has over {most}")
        elif status < 500:
            problem = Problem(400, "malformed_http", "this is not a proper HTTP/1.1 request")
        else:
            log.error("request_failed", error=type(exc).__name__)
            problem = Problem(500, "internal_error", "the request failed; see the log of this process")
        response = web.Response(
            status=problem.status, body=json.dumps(problem.body()), content_type="application/json"
        )
        response.force_close()
        return response

    def is_late(self, now: float) -> bool:
        """Whether the head of its request takes too long."""
        return bool(self.head_since) and now - self.head_since > self._door.limits.head_seconds_max

    def turn_out(self, problem: Problem | None = None) -> None:
        """Close it, with a word if it was about to ask something."""
        self._turned_out = True
        self._door.idle.pop(self, None)
        if self.transport is not None and problem is not None:
            self.transport.write(_bare_answer(problem))
        self.force_close()


class ConnectionRefusals(asyncio.Protocol):
    """One connection too many: it is told so and closed, before it can cost more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it, hang up."""
        writer = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass of it
        sentence = "too many connections are open, and all of them at work; try again"
        writer.write(
            _bare_answer(Problem(503, "too_many_connections", sentence, headers={"Retry-After": "1"}))
        )
        transport.close()


class GuardedListener:
    """Lets connections in, as many as there may be; the one that idled longest makes room for a new one."""

    def __init__(self, server: web.Server, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.connections_max = min(limits.connections_max, max(16, files_max() - FILES_SPARED))
        self.idle: OrderedDict[GuardedConnection, None] = OrderedDict()
        """Connections that wait for a request, those that have done so longest first."""
        self._server = server
        self._open: set[GuardedConnection] = set()
        self._clock: asyncio.TimerHandle | None = None
        if self.connections_max < limits.connections_max:
            log.warning(
                "connections_bounded_by_open_files",
                connections_max=self.connections_max,
                wanted=limits.connections_max,
            )

    def __repr__(self) -> str:
        return f"<GuardedListener {len(self._open)} of {self.connections_max} connections, {len(self.idle)} idle>"

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._open)

    def admit(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._open) >= self.connections_max:
            if not self.idle:
                return ConnectionRefusals()
            oldest = next(iter(self.idle))
            oldest.turn_out()
            self._open.discard(oldest)
        connection = GuardedConnection(self, self._server)
        self._open.add(connection)
        # From now on, not from its first event: of a burst that is accepted in one go none has had any.
        self.idle[connection] = None
        return connection

    def gone(self, connection: GuardedConnection) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        self.idle.pop(connection, None)

    def watch(self) -> None:
        """Keep the connections' time from now on."""
        self._clock = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def close(self) -> None:
        """Watch no more."""
        if self._clock is not None:
            self._clock.cancel()

    def _tick(self) -> None:
        now = time.monotonic()
        for connection in [one for one in self.idle if one.is_late(now)]:
            said = "the head of the request came too slowly; send it in one go"
            connection.turn_out(Problem(408, "request_timeout", said))
        self.watch()


@web.middleware
async def plain_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only requests that every reader of HTTP understands alike come through. Goes inside what answers problems."""
    connection = request.protocol
    if not isinstance(connection, GuardedConnection):
        return await _plain(request, handler)
    with connection.working():
        return await _plain(request, handler)


async def _plain(request: web.Request, handler: Handler) -> web.StreamResponse:
    _refuse_what_is_not_spoken(request)
    refuse_declared_size(request, request.app.get(LARGEST_BODY, request.client_max_size))
    return await handler(request)


def refuse_declared_size(request: web.Request, bytes_max: int) -> None:
    """Refuse a body by its Content-Length, before any of it is read.

    Raises:
        Problem: 413.
    """
    declared = request.content_length
    if declared is not None and declared > bytes_max:
        said = f"the body is larger than the {bytes_max} bytes that this path takes"
        raise Problem(413, "body_too_large", said, headers={"Connection": "close"})


def no_pages(names: Collection[str] = ()) -> Middleware:
    """A middleware that refuses what a web page of another origin sends. Goes inside what answers problems.

    `names` are the host names under which clients reach this server, in lower case; IP addresses need not be named.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        fields = request.headers
        refused = browser.refusal(
            request.method,
            fields.get("Host", ""),
            fields.get("Origin"),
            fields.get("Sec-Fetch-Site"),
            names=names,
        )
        if refused is not None:
            raise refused
        return await handler(request)

    return guarded


async def listen(
    runner: web.AppRunner,
    host: str | None = None,
    port: int | None = None,
    *,
    sock: Any = None,
    limits: ConnectionLimits | None = None,
) -> tuple[asyncio.Server, GuardedListener]:
    """Listen with a runner that was set up. Close both: the server first, the door last.

    Raises:
        OSError: the address is taken or not ours.
    """
    if runner.server is None:
        raise RuntimeError("the runner was not set up")
    limits = limits or ConnectionLimits()
    door = GuardedListener(runner.server, limits)
    where: dict[str, Any] = {"host": host, "port": port} if sock is None else {"sock": sock}
    server = await asyncio.get_running_loop().create_server(door.admit, backlog=_BACKLOG, **where)
    door.watch()
    return server, door


def files_max() -> int:
    """How many files and connections this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_files_max(wanted: int = 1_048_576) -> None:
    """As many open files as the system lets this process have: the usual 1,024 would be used up by idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _refuse_what_is_not_spoken(request: web.Request) -> None:
    headers = request.headers
    closing = {"Connection": "close"}
    for name in _ONCE:
        if len(headers.getall(name, ())) > 1:
            said = f"a request has one {name} header, this one has several"
            raise Problem(400, "header_repeated", said, headers=closing)
    if "Upgrade" in headers or request.method == "CONNECT":
        raise Problem(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only", headers=closing)
    coding = headers.get("Transfer-Encoding")
    if coding is not None and coding.strip().lower() != "chunked":
        said = "the only Transfer-Encoding accepted is chunked"
        raise Problem(400, "malformed_http", said, headers=closing)
    packed = headers.get("Content-Encoding")
    if packed is not None and packed.strip().lower() != "identity":
        said = "packed bodies are not taken: send it without Content-Encoding"
        raise Problem(415, "content_encoding_unsupported", said, headers=closing)


def _bare_answer(problem: Problem) -> bytes:
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
