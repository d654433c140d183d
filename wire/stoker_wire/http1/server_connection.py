"""One client connection of the HTTP/1.1 server: its requests in order, within the time limits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from stoker_wire.errors.problem import Problem
from stoker_wire.http1.flow_control import FlowControl
from stoker_wire.http1.limits import Limits
from stoker_wire.http1.messages import CONTINUE, Header, date_field, status_line
from stoker_wire.http1.request import Request, TunnelListener
from stoker_wire.http1.request_reader import BudgetOf, ReadState, RequestMemory, RequestReader
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.sockets import reset_when_closed

log = structlog.get_logger(component="http")

_PIPELINED_MAX = 8
_AFTER_HANDSHAKE_BYTES_MAX = 64 * 1024
"""A client waits for the answer to its handshake before it sends frames (RFC 6455 §4.1)."""
_NEVER = float("inf")

Application = Callable[[Request, ResponseCycle], None]
"""Answers a request at once or later. A `Problem` that it raises becomes the response."""

DescribeProblem = Callable[[Problem, Request], tuple[bytes, tuple[Header, ...]]]
"""Body, as JSON, and header fields of a problem's response; the request may be incomplete."""


class ConnectionRegistry(Protocol):
    """The server's state that its connections share."""

    limits: Limits
    memory: RequestMemory
    application: Application
    budget_of: BudgetOf | None
    describe: DescribeProblem
    closing: bool
    """While true, every response closes its connection."""

    def admit(self, connection: "ServerConnection") -> bool:
        """Register a new connection. False when too many are active."""

    def mark_active(self, connection: "ServerConnection") -> None:
        """A request has begun on the connection."""

    def mark_idle(self, connection: "ServerConnection") -> None:
        """The connection waits for its next request."""

    def remove(self, connection: "ServerConnection") -> None:
        """The connection has ended."""


class ServerConnection(asyncio.Protocol):
    """Passes complete requests to the application one at a time, in order."""

    __slots__ = (
        "_closing",
        "_cycle",
        "_deadline",
        "_flow",
        "_limits",
        "_reader",
        "_server",
        "_starting",
        "_tunnel",
        "_waiting",
        "transport",
    )

    def __init__(self, server: ConnectionRegistry) -> None:
        self._server = server
        self._limits = server.limits
        self._waiting: deque[Request | Problem] = deque()
        self._reader = RequestReader(server.limits, server.memory, server.budget_of, self._waiting)
        self._cycle: ResponseCycle | None = None
        self._starting = False
        self._tunnel: TunnelListener | None = None
        self._closing = False
        """No further request is served."""
        self._deadline = _NEVER
        """For the client to send or to read, monotonic clock; ignored while the application works."""
        self._flow: FlowControl = cast("FlowControl", None)
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    # --- asyncio callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast("asyncio.Transport", transport)
        self._flow = FlowControl(self.transport, self._limits.stall_seconds_max)
        self._deadline = time.monotonic() + self._limits.idle_seconds_max
        if not self._server.admit(self):
            self._refuse(
                Problem(
                    503,
                    "too_many_connections",
                    "too many connections are open, and all of them are busy; try again",
                    headers={"Retry-After": "1"},
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected; the listener of its current request hears of it."""
        self._server.remove(self)
        cycle, self._cycle = self._cycle, None
        for request in (self._reader.request, *self._waiting, None if cycle is None else cycle.request):
            if isinstance(request, Request):
                self._reader.release(request)
        self._waiting.clear()
        if cycle is not None and cycle.listener is not None:
            listener, cycle.listener = cycle.listener, None
            listener.client_disconnected()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes and start the next complete request."""
        if self._closing:
            return
        if self._tunnel is not None:
            self._tunnel.client_data(data)
            return
        reader, waiting = self._reader, len(self._waiting)
        if reader.state is ReadState.IDLE:
            self._deadline = time.monotonic() + self._limits.head_seconds_max
        reader.feed(data)
        if reader.after_handshake is not None and len(reader.after_handshake) > _AFTER_HANDSHAKE_BYTES_MAX:
            self.transport.abort()
            return
        if reader.problem is not None:
            self._closing = True
        elif reader.state is ReadState.BODY:
            earned = reader.body_bytes / self._limits.body_bytes_per_second_min
            self._deadline = reader.head_received_at + self._limits.body_seconds_max + earned
        elif len(self._waiting) > waiting:
            self._deadline = _NEVER
        if reader.state is ReadState.BODY or (self._waiting and isinstance(self._waiting[0], Request)):
            # A connection with only an invalid head stays idle, so that a new connection can replace it.
            self._server.mark_active(self)
        if self._waiting:
            self._start_next()
        if reader.expects_continue:
            self._ask_for_body()

    def eof_received(self) -> bool:
        """Close a half-open connection. A WebSocket stays open until the other direction has ended."""
        if self._tunnel is None or self._closing:
            return False
        self._tunnel.client_finished()
        # TLS has no half-closed connections.
        return self.transport.can_write_eof() and not self.transport.is_closing()

    def pause_writing(self) -> None:
        """The write buffer is full: pipelined requests wait until the client has read."""
        self._flow.pause_writing()
        if self._cycle is not None and self._cycle.listener is not None:
            self._cycle.listener.pause_writing()

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        self._flow.resume_writing()
        if self._closing:
            self._deadline = time.monotonic() + self._limits.stall_seconds_max
        if self._cycle is not None and self._cycle.listener is not None:
            self._cycle.listener.resume_writing()
        if self._waiting:
            self._start_next()

    # --- the response cycle

    @property
    def closing(self) -> bool:
        """Whether the connection closes after the current response."""
        return self._server.closing

    def describe(self, problem: Problem, request: Request) -> tuple[bytes, tuple[Header, ...]]:
        """Body, as JSON, and header fields of a problem's response."""
        return self._server.describe(problem, request)

    def switch_protocols(self, tunnel: TunnelListener) -> None:
        """Pass everything that the client sends to the tunnel."""
        self._tunnel = tunnel
        early, self._reader.after_handshake = self._reader.after_handshake, bytearray()
        if early:
            tunnel.client_data(bytes(early))

    def take_early(self) -> bytes:
        """What has come after a handshake, for a protocol that replaces this one on the transport."""
        early, self._reader.after_handshake = self._reader.after_handshake, bytearray()
        return bytes(early or b"")

    def set_reading(self, reading: bool) -> None:
        """Pause or resume reading from the client."""
        self._flow.set_reading(reading)

    def response_complete(self, cycle: ResponseCycle, *, stays_open: bool) -> None:
        """Start the next request, or close."""
        if cycle is not self._cycle:
            return
        self._reader.release(cycle.request)
        self._cycle = None
        if cycle.request.http_1_0:
            reset_when_closed(self.transport, reset=False)
        if not stays_open:
            self._close()
            return
        if not self._waiting:
            idle = self._reader.state is ReadState.IDLE
            self._deadline = time.monotonic() + (
                self._limits.idle_seconds_max if idle else self._limits.head_seconds_max
            )
        self._start_next()
        if self._reader.expects_continue:
            self._ask_for_body()
        busy = self._cycle is not None or self._waiting or self._closing
        if not busy and self._reader.state is not ReadState.BODY:
            self._server.mark_idle(self)

    def _ask_for_body(self) -> None:
        """Send `100 Continue` after the responses to all earlier requests, unless the body has begun."""
        reader = self._reader
        if self._cycle is not None or self._waiting or self._closing:
            return
        reader.expects_continue = False
        if reader.state is ReadState.BODY and not reader.body_bytes:
            self.transport.write(CONTINUE)

    def _start_next(self) -> None:
        """Pass the next request to the application, unless one is active or the write buffer is full."""
        if self._starting:
            return
        self._starting = True
        while (
            self._waiting
            and self._cycle is None
            and not self._flow.write_paused
            and not self.transport.is_closing()
        ):
            request = self._waiting.popleft()
            if isinstance(request, Problem):
                self._refuse(request)
                break
            cycle = self._cycle = ResponseCycle(request, self.transport, self)
            if request.http_1_0:
                # Without length and chunks, an orderly close would be the end of the response.
                reset_when_closed(self.transport, reset=True)
            try:
                self._server.application(request, cycle)
            except Problem as problem:
                cycle.respond_problem(problem)
            except Exception as fault:  # noqa: BLE001 - a failing request must not end the server
                log.error("request_failed", error=type(fault).__name__, detail=str(fault)[:200])
                message = "the server failed on this request; see its log"
                cycle.respond_problem(Problem(500, "internal_error", message))
        self._starting = False
        # Bounds the memory of pipelined requests. With a full write buffer reading goes on until one request
        # waits: only reading detects that the client has disconnected.
        self._flow.set_reading(len(self._waiting) < (1 if self._flow.write_paused else _PIPELINED_MAX))

    # --- the end

    def expire(self, now: float) -> None:
        """Close the connection if a deadline has passed; `now` is monotonic, s. The server calls it regularly."""
        if self._flow.is_stalled(now):
            self.transport.abort()
        elif self._tunnel is None and self._flow.has_left():
            self.transport.close()
        elif now < self._deadline or self._cycle is not None or self._waiting:
            return
        elif self._closing:
            if not self._flow.write_paused:
                self.transport.abort()
        elif self._reader.state is ReadState.IDLE:
            self._close()
        else:
            self._refuse(Problem(408, "request_timeout", "the request came too slowly; send it in one go"))

    def evict(self) -> None:
        """Abort this idle connection in favour of a new one. An orderly close would wait for a slow reader."""
        self._closing = True
        self.transport.abort()

    def _close(self) -> None:
        """Close after the write buffer has been sent; abort a client that does not read it."""
        self._closing = True
        self._deadline = time.monotonic() + self._limits.stall_seconds_max
        self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Send the problem, then close so that the peer can read it."""
        self._closing = True
        self._deadline = time.monotonic() + self._limits.linger_seconds
        body, headers = self.describe(problem, self._reader.request)
        self.transport.write(
            status_line(problem.status)
            + date_field()
            + b"".join(b"%b: %b\r\n" % field for field in headers if field[0] != b"connection")
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
