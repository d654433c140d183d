"""The server's side of HTTP/1.1: one connection, its requests one after the other, within its limits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast

import httptools
import structlog

from stoker_pyworker.http.limits import Limits
from stoker_pyworker.http.messages import (
    BODILESS,
    CONTINUE,
    JSON,
    LAST_CHUNK,
    Header,
    chunk,
    problem_json,
    status_line,
)
from stoker_pyworker.http.request import Listener, Request
from stoker_pyworker.http.sockets import reset_when_closed
from stoker_wire.problem import Problem

log = structlog.get_logger(room="http")

_PIPELINED_MAX = 8
_NEVER = float("inf")
_PIECE_BYTES = 4096
"""A smaller piece of a body is copied to those before it: as an object of its own it would take more than it holds."""
_REQUEST_BYTES, _FIELD_BYTES = 300, 150
"""What a request and each of its header fields take in memory beside their text: many times it, where that is short."""
_PROGRESS_BYTES = 64 * 1024
"""Read in the time of a stall: who takes a byte now and then only holds the memory of its answer."""


Application = Callable[[Request, "ClientConnection"], None]


class Connections(Protocol):
    """All connections of a server, as one of them sees it."""

    limits: Limits
    application: "Application"
    closing: bool
    """While true, every answer closes its connection."""
    held_bytes: int
    """Requests in memory, their bodies above all."""

    def admit(self, connection: "ClientConnection") -> bool:
        """Count a new connection. False when there are too many at work."""

    def works(self, connection: "ClientConnection") -> None:
        """A request has begun on the connection."""

    def idles(self, connection: "ClientConnection") -> None:
        """The connection waits for its next request."""

    def forget(self, connection: "ClientConnection") -> None:
        """A connection has ended."""


class _Phase(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    REFUSED = auto()


class _Framing(Enum):
    """How a client sees where a streamed answer ends."""

    CHUNKS = auto()
    UNTIL_CLOSE = auto()
    NO_BODY = auto()


class ClientConnection(asyncio.Protocol):
    """A client's connection. Requests are handed to the application one at a time, in order."""

    __slots__ = (
        "_advancing",
        "_body",
        "_body_bytes",
        "_building",
        "_busy",
        "_deadline",
        "_fields",
        "_framing",
        "_full",
        "_head_bytes",
        "_held_bytes",
        "_hosts",
        "_limits",
        "_parser",
        "_phase",
        "_problem",
        "_reading",
        "_received",
        "_server",
        "_stalled_until",
        "_unread_bytes",
        "_waiting",
        "answering",
        "current",
        "listener",
        "transport",
    )

    def __init__(self, server: Connections) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _Phase.IDLE
        self._building = Request()
        self._body: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._held_bytes = 0
        self._fields = 0
        self._received = 0.0
        self._hosts = 0
        self._problem: Problem | None = None
        self._waiting: deque[Request | Problem] = deque()
        self._busy = False
        self._advancing = False
        self._reading = True
        self._full = False
        self._deadline = _NEVER
        self._stalled_until = _NEVER
        self._unread_bytes = 0
        self._framing = _Framing.CHUNKS
        self.answering = False
        self.current: Request | None = None
        self.listener: Listener | None = None
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    # --- what asyncio tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self._deadline = time.monotonic() + self._limits.idle_seconds_max
        if not self._server.admit(self):
            self._refuse(
                Problem(503, "too_many_connections", "this worker has no connection left; route again")
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; whoever answers it is told at once."""
        self._server.forget(self)
        self._hold(-self._held_bytes)
        self._waiting.clear()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.client_gone()

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests that are complete are answered in order."""
        if self._phase is _Phase.REFUSED:
            return
        if self._phase is _Phase.IDLE:
            self._head_bytes = 0
            self._deadline = time.monotonic() + self._limits.head_seconds_max
            self._phase = _Phase.HEAD
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only; send no Upgrade")
        except httptools.HttpParserError as fault:
            self._fault(400, "malformed_http", f"not valid HTTP/1.1: {fault}")
        if self._phase is _Phase.HEAD and self._head_bytes > self._limits.head_bytes_max:
            self._head_too_large()
        if self._problem is not None:
            self._waiting.append(self._problem)
            self._phase = _Phase.REFUSED
        elif self._phase is _Phase.BODY:
            earned = self._body_bytes / self._limits.body_bytes_per_second_min
            self._deadline = self._received + self._limits.body_seconds_max + earned
        if self._waiting:
            self._advance()

    def eof_received(self) -> bool:
        """A client that closes its side has left: half-open connections are not served."""
        return False

    def pause_writing(self) -> None:
        """The client does not keep up: what it asks further waits until it has read what it was told."""
        self._full = True
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._stalled_until = time.monotonic() + self._limits.stall_seconds_max
        if self.listener is not None:
            self.listener.client_full()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._full = False
        self._stalled_until = _NEVER
        if self._phase is _Phase.REFUSED:
            self._deadline = time.monotonic() + self._limits.stall_seconds_max
        if self.listener is not None:
            self.listener.client_drained()
        if self._waiting:
            self._advance()

    # --- what the parser tells us

    def on_message_begin(self) -> None:
        """A request starts: maybe the next of several in one read."""
        if self._phase is _Phase.IDLE:
            self._head_bytes = 0
        self._phase = _Phase.HEAD
        self._building = Request()
        self._body = []
        self._body_bytes = 0
        self._fields = 0
        self._hosts = 0

    def on_url(self, url: bytes) -> None:
        """Target of the request, maybe in pieces."""
        self._building.path += url
        if len(self._building.path) > self._limits.head_bytes_max:
            self._head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; a trailer field is counted and dropped."""
        self._fields += 1
        if self._fields > self._limits.head_fields_max:
            self._head_too_large()
            return
        name = name.lower()
        if self._phase is _Phase.HEAD:
            if name == b"host":
                self._hosts += 1
            self._building.headers.append((name, value))
        else:
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > self._limits.head_bytes_max:
                self._head_too_large()

    def on_headers_complete(self) -> None:
        """Everything that can be refused without the body is refused here."""
        if self._problem is not None:
            return
        request = self._building
        version = self._parser.get_http_version()
        if not self._speaks(version):
            return
        request.http_1_0 = version == "1.0"
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        target = request.path
        if not target.startswith(b"/"):
            target = _origin_form(target)
        request.path, _, request.query = target.partition(b"?")
        self._phase = _Phase.BODY
        self._server.works(self)
        self._received = time.monotonic()
        if not self._names_one_host(request):
            return
        head_bytes = len(target)
        for name, value in request.headers:
            head_bytes += len(name) + len(value) + 4
            if name == b"content-length":
                if int(value) > self._limits.body_bytes_max:
                    self._body_too_large()
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or request.http_1_0:
                    self._fault(400, "malformed_http", "the only Transfer-Encoding accepted is chunked")
            elif name == b"expect":
                self._expect(value)
        if head_bytes > self._limits.head_bytes_max:
            self._head_too_large()
        self._keep(_REQUEST_BYTES + head_bytes + len(request.headers) * _FIELD_BYTES)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._problem is not None:
            return
        self._body_bytes += len(data)
        self._keep(len(data))
        if self._problem is not None:
            self._body.clear()
        elif self._body_bytes > self._limits.body_bytes_max:
            self._body.clear()
            self._body_too_large()
        elif len(data) >= _PIECE_BYTES or not self._body:
            self._body.append(data)
        elif isinstance(last := self._body[-1], bytearray):
            last += data
        else:
            self._body.append(bytearray(data))

    def on_message_complete(self) -> None:
        """The request is complete; it is answered when those before it are."""
        if self._problem is not None:
            return
        request = self._building
        if self._body:
            first = self._body[0]
            request.body = (
                first if len(self._body) == 1 and isinstance(first, bytes) else b"".join(self._body)
            )
            self._body = []
        self._phase = _Phase.IDLE
        self._deadline = _NEVER
        self._waiting.append(request)

    # --- what the application asks of us

    def write(self, data: bytes) -> None:
        """Send bytes of the current answer, head included."""
        self.transport.write(data)

    def answer(
        self, status: int, body: bytes, *, content_type: bytes = JSON, headers: tuple[Header, ...] = ()
    ) -> None:
        """Send a whole answer to the current request."""
        lines = [status_line(status), b"content-type: ", content_type, b"\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not self.stays_open:
            lines.append(b"connection: close\r\n")
        if status in BODILESS:
            lines.append(b"\r\n")
        else:
            lines.append(b"content-length: %d\r\n\r\n" % len(body))
            if self.current is None or self.current.method != b"HEAD":
                lines.append(body)
        self.transport.write(b"".join(lines))
        self.done()

    def start(self, status: int, headers: tuple[Header, ...]) -> None:
        """Begin an answer whose length is not known; `write_piece` and `finish` follow."""
        lines = [status_line(status)]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        self.answering = True
        if status in BODILESS:
            self._framing = _Framing.NO_BODY
        elif self.current is not None and self.current.http_1_0:
            self._framing = _Framing.UNTIL_CLOSE
            self.current.keep_alive = False
        else:
            self._framing = _Framing.CHUNKS
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.stays_open:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join([*lines, b"\r\n"]))

    def write_piece(self, data: bytes) -> None:
        """Send a piece of the answer begun with `start`."""
        if self._framing is not _Framing.NO_BODY:
            self.transport.write(chunk(data) if self._framing is _Framing.CHUNKS else data)

    def finish(self) -> None:
        """End the answer begun with `start`."""
        if self._framing is _Framing.CHUNKS:
            self.transport.write(LAST_CHUNK)
        self.done()

    def refuse(self, problem: Problem) -> None:
        """Answer the current request with a problem."""
        headers = tuple((name.lower().encode(), value.encode()) for name, value in problem.headers.items())
        self.answer(problem.status, problem_json(problem), headers=headers)

    @property
    def stays_open(self) -> bool:
        """Whether the connection may serve another request after this one."""
        return self.current is not None and self.current.keep_alive and not self._server.closing

    def done(self) -> None:
        """The answer is complete: the next request may have its turn."""
        stays_open = self.stays_open
        if self.current is not None:
            self._hold(-self.current.held_bytes)
        self._busy = self.answering = False
        self.current = None
        self.listener = None
        if not stays_open:
            self._close()
            return
        if not self._waiting:
            idle = self._phase is _Phase.IDLE
            self._deadline = time.monotonic() + (
                self._limits.idle_seconds_max if idle else self._limits.head_seconds_max
            )
        self._advance()
        if not self._busy and not self._waiting and self._phase in (_Phase.IDLE, _Phase.HEAD):
            self._server.idles(self)

    def abort(self) -> None:
        """Cut the connection: an answer that has begun cannot be completed, and the client must see that."""
        self.listener = None
        if self.current is not None and self.current.http_1_0:
            # That answer has neither length nor chunks: an orderly close would end it as if it were whole.
            reset_when_closed(self.transport)
        self.transport.abort()

    def make_room(self) -> None:
        """End it for the sake of a new connection; it has asked nothing yet, or all that it asked is answered."""
        self._phase = _Phase.REFUSED
        # Closing would wait for a client that does not read what it was answered.
        self.transport.abort()

    # --- inside

    def _close(self) -> None:
        """Close, once what is written has gone out; who does not read that is cut."""
        self._phase = _Phase.REFUSED
        self._deadline = time.monotonic() + self._limits.stall_seconds_max
        self.transport.close()

    def _advance(self) -> None:
        """Hand the next complete request to the application, unless one is being answered or the client is full."""
        if self._advancing:
            return
        self._advancing = True
        while self._waiting and not self._busy and not self._full and not self.transport.is_closing():
            item = self._waiting.popleft()
            if isinstance(item, Problem):
                self._refuse(item)
                break
            self._busy = True
            self.current = item
            try:
                self._server.application(item, self)
            except Problem as problem:
                self.refuse(problem)
            except Exception as fault:  # noqa: BLE001 - one request's fault must not end the worker
                log.error("request_failed", error=type(fault).__name__, detail=str(fault)[:200])
                self.refuse(Problem(500, "internal_error", "the worker failed on this request; see its log"))
        self._advancing = False
        # A client may send its next requests early; it may not fill the memory with them, nor with their answers.
        # One that is full is still read until a request waits, for its leaving is seen only by reading.
        reading = len(self._waiting) < (1 if self._full else _PIPELINED_MAX)
        if reading is not self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _speaks(self, version: str) -> bool:
        if version not in ("1.1", "1.0"):
            self._fault(505, "http_version_unsupported", f"this server speaks HTTP/1.1, not {version}")
        elif self._parser.should_upgrade():
            self._fault(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only; send no Upgrade")
        return self._problem is None

    def _names_one_host(self, request: Request) -> bool:
        if self._hosts > 1:
            self._fault(400, "header_repeated", "a request has one Host header, this one has several")
        elif not self._hosts and not request.http_1_0:
            self._fault(400, "host_missing", "an HTTP/1.1 request needs a Host header")
        return self._problem is None

    def _keep(self, size: int) -> None:
        """More of the request that comes is held, if all of them together leave room for it."""
        self._building.held_bytes += size
        self._hold(size)
        if self._server.held_bytes > self._limits.bodies_bytes_max:
            self._fault(503, "bodies_too_large", "this worker holds too much request data; route again")

    def _hold(self, change: int) -> None:
        self._held_bytes += change
        self._server.held_bytes += change

    def _fault(self, status: int, code: str, message: str) -> None:
        if self._problem is None:
            self._problem = Problem(status, code, message)

    def _head_too_large(self) -> None:
        most = f"{self._limits.head_bytes_max} bytes and {self._limits.head_fields_max} fields"
        self._fault(431, "head_too_large", f"the request's head is over {most}; send less in headers")

    def _body_too_large(self) -> None:
        most = self._limits.body_bytes_max
        self._fault(413, "body_too_large", f"the body is over {most} bytes; send less, or send a link")

    def _expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            self._fault(417, "expectation_unknown", "the only expectation known is 100-continue")
        elif self._problem is None and not self._busy and not self._waiting:
            self.transport.write(CONTINUE)

    def _refuse(self, problem: Problem) -> None:
        """Say what is wrong, then close, in a way that lets the peer read it."""
        self._phase = _Phase.REFUSED
        self._deadline = time.monotonic() + self._limits.linger_seconds
        body = problem_json(problem)
        self.transport.write(
            status_line(problem.status)
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def expire(self, now: float) -> None:
        """Called by the server's clock: close a connection whose time is up."""
        if self._full:
            self._see_progress(now)
        if now >= self._stalled_until:
            self.transport.abort()
        elif now < self._deadline or self._busy or self._waiting:
            return
        elif self._phase in (_Phase.HEAD, _Phase.BODY):
            self._refuse(Problem(408, "request_timeout", "the request came too slowly; send it in one go"))
        elif self._phase is not _Phase.REFUSED:
            self._close()
        elif not self._full:
            self.transport.abort()

    def _see_progress(self, now: float) -> None:
        """A client that reads on is not stalled, however long the whole of a large answer takes it."""
        unread = self.transport.get_write_buffer_size()
        if self._unread_bytes - unread >= _PROGRESS_BYTES:
            self._stalled_until = now + self._limits.stall_seconds_max
            self._unread_bytes = unread
        elif unread > self._unread_bytes:
            self._unread_bytes = unread


def _origin_form(target: bytes) -> bytes:
    """`http://host/path?q` as `/path?q`; anything else stays and finds no route."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target
    path = url.path or b"/"
    return path + (b"?" + url.query if url.query else b"")
