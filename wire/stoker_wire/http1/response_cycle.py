"""Writes the response to one request of a connection."""

import asyncio
from collections.abc import Iterable
from enum import Enum, auto
from typing import Protocol

from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import (
    BODILESS,
    JSON,
    LAST_CHUNK,
    Header,
    chunk,
    date_field,
    status_line,
)
from stoker_wire.http1.request import Request, ResponseListener, TunnelListener


class CycleOwner(Protocol):
    """The connection of a response cycle."""

    @property
    def closing(self) -> bool:
        """Whether the connection closes after the current response."""

    def response_complete(self, cycle: "ResponseCycle", *, stays_open: bool) -> None:
        """The response is complete; start the next request, or close."""

    def describe(self, problem: Problem, request: Request) -> tuple[bytes, tuple[Header, ...]]:
        """Body, as JSON, and header fields of a problem's response."""

    def switch_protocols(self, tunnel: TunnelListener) -> None:
        """Pass everything that the client sends to the tunnel."""

    def set_reading(self, reading: bool) -> None:
        """Pause or resume reading from the client."""

    def take_early(self) -> bytes:
        """What has come after a handshake, for a protocol that replaces the connection's on the transport."""


class _Framing(Enum):
    """How the client finds the end of a streamed response."""

    CHUNKS = auto()
    LENGTH = auto()
    UNTIL_CLOSE = auto()
    NO_BODY = auto()


class ResponseCycle:
    """One request and its response. `listener` receives client events while the response is produced."""

    __slots__ = ("_framing", "_owner", "listener", "request", "started", "transport")

    def __init__(self, request: Request, transport: asyncio.Transport, owner: CycleOwner) -> None:
        self.request = request
        self.transport = transport
        self._owner = owner
        self._framing = _Framing.CHUNKS
        self.started = False
        """A streamed response has begun and is not complete."""
        self.listener: ResponseListener | None = None

    @property
    def stays_open(self) -> bool:
        """Whether the connection serves another request after this one."""
        return self.request.keep_alive and not self._owner.closing

    def write(self, data: bytes) -> None:
        """Send raw bytes of the response, head included."""
        self.transport.write(data)

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes | None = JSON,
        headers: Iterable[Header] = (),
    ) -> None:
        """Send a complete response. `content_type` None: it is among the headers, or the body has none."""
        lines = self._head(status, headers)
        if content_type is not None:
            lines += (b"content-type: ", content_type, b"\r\n")
        if not self.stays_open:
            lines.append(b"connection: close\r\n")
        elif self.request.http_1_0:
            lines.append(b"connection: keep-alive\r\n")
        if status in BODILESS:
            lines.append(b"\r\n")
        else:
            lines.append(b"content-length: %d\r\n\r\n" % len(body))
            if self.request.method != b"HEAD":
                lines.append(body)
        self.transport.write(b"".join(lines))
        self.complete()

    def respond_problem(self, problem: Problem) -> None:
        """Send a problem as the complete response."""
        body, headers = self._owner.describe(problem, self.request)
        self.respond(problem.status, body, headers=headers)

    def start(
        self, status: int, headers: Iterable[Header], *, length: int | None = None, first: bytes = b""
    ) -> None:
        """Start a response; `write_piece` and `finish` follow.

        Args:
            length: None: the body's length is not known.
            first: piece of the body that goes out with the head, in one write.
        """
        lines = self._head(status, headers)
        self.started = True
        if status in BODILESS:
            self._framing = _Framing.NO_BODY
        elif self.request.method == b"HEAD":
            self._framing = _Framing.NO_BODY
            if length is not None:
                lines.append(b"content-length: %d\r\n" % length)
        elif length is not None:
            self._framing = _Framing.LENGTH
            lines.append(b"content-length: %d\r\n" % length)
        elif self.request.http_1_0:
            self._framing = _Framing.UNTIL_CLOSE
            self.request.keep_alive = False
        else:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.stays_open:
            lines.append(b"connection: close\r\n")
        elif self.request.http_1_0:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        if first and self._framing is not _Framing.NO_BODY:
            lines.append(chunk(first) if self._framing is _Framing.CHUNKS else first)
        self.transport.write(b"".join(lines))

    def _head(self, status: int, headers: Iterable[Header]) -> list[bytes]:
        """Status line and header fields, without those about the connection and the body's framing."""
        lines, dated = [status_line(status)], False
        for name, value in headers:
            if name == b"connection":
                self.request.keep_alive &= value.lower() != b"close"
            else:
                dated |= name == b"date"
                lines += (name, b": ", value, b"\r\n")
        if not dated:
            lines.append(date_field())
        return lines

    def write_piece(self, data: bytes) -> None:
        """Send a piece of the body after `start`."""
        if data and self._framing is not _Framing.NO_BODY:  # a chunk of no bytes would end the body
            self.transport.write(chunk(data) if self._framing is _Framing.CHUNKS else data)

    def finish(self) -> None:
        """End the response begun with `start`."""
        if self._framing is _Framing.CHUNKS:
            self.transport.write(LAST_CHUNK)
        self.complete()

    def complete(self) -> None:
        """The response has been written completely."""
        self.started = False
        self.listener = None
        self._owner.response_complete(self, stays_open=self.stays_open)

    def switch_protocols(self, tunnel: TunnelListener) -> None:
        """The connection is a WebSocket from now on. `write` sends to the client; `complete` ends it."""
        self._owner.switch_protocols(tunnel)

    def take_early(self) -> bytes:
        """What has come after a handshake, for a protocol that replaces the connection's on the transport."""
        return self._owner.take_early()

    def set_reading(self, reading: bool) -> None:
        """Pause or resume reading from the client."""
        self._owner.set_reading(reading)

    def abort(self) -> None:
        """Cut the connection, so that the client sees an incomplete response."""
        self.listener = None
        self.transport.abort()
