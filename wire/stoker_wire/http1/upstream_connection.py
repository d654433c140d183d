"""A keep-alive HTTP/1.1 connection to a server: one request at a time, its response parsed into a sink."""

import asyncio
import errno
import socket
import time
from typing import Protocol, cast, runtime_checkable

import httptools

from stoker_wire.errors.picklable import PicklableError
from stoker_wire.http1.messages import BODILESS, Header

_OVERHEAD_BYTES_MAX = 64 * 1024
"""A response without a byte of its body: header fields, interim responses, trailers, chunk extensions."""
_RESET_SECONDS = 0.05
"""Time between a server's shutdown of a connection and its close."""


class UpstreamError(PicklableError, Exception):
    """The server did not respond: `connect` (refused), `closed` (incomplete response), `malformed`, or `not_final`
    (a status that is no response to the request).
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class ResponseHead:
    """Status and header fields of a response; field names in lower case."""

    __slots__ = ("chunked", "headers", "length", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.length: int | None = None
        self.chunked = False

    @property
    def ends_at_close(self) -> bool:
        """Whether closing ends the response. Never true for an interim (1xx) or incomplete head (status 0)."""
        return self.status >= 200 and self.length is None and not self.chunked

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field, or None; `name` in lower case."""
        for known, value in self.headers:
            if known == name:
                return value
        return None


class ResponseSink(Protocol):
    """Receives a response. Calls come in order: sent, head, body pieces, then end or fault."""

    connection: "UpstreamConnection | None"
    """The connection in use. The pool sets it."""

    def sent(self) -> None:
        """The request was written to a connection."""

    def head(self, head: ResponseHead) -> None:
        """Status and header fields were received."""

    def body(self, data: bytes) -> None:
        """A piece of the body was received."""

    def flush(self) -> None:
        """All pieces of one read were delivered, and more will follow."""

    def end(self) -> None:
        """The response is complete."""

    def fault(self, fault: UpstreamError) -> None:
        """The response will not be completed."""


@runtime_checkable
class SwitchingSink(ResponseSink, Protocol):
    """A sink whose request asks for another protocol."""

    def switched(
        self, head: ResponseHead, connection: "UpstreamConnection", early: bytes
    ) -> asyncio.Protocol:
        """The server has agreed (101), and `early` came after its head. Returns who receives the rest.

        The connection belongs to the sink from now on. `connection.lost()` must be called when it is closed.
        """


class ConnectionOwner(Protocol):
    """The pool, as its connections see it."""

    last_received_at: float
    """When any connection last received data, monotonic clock."""

    def submit(self, sink: ResponseSink, request: tuple[bytes, ...], *, fresh: bool = False) -> None:
        """Send a request again; `fresh` requires a new connection."""

    def release(self, connection: "UpstreamConnection", *, reusable: bool) -> None:
        """The connection has finished its request."""

    def discard(self, connection: "UpstreamConnection") -> None:
        """The connection is closed."""


class UpstreamConnection(asyncio.Protocol):
    """One connection of a pool."""

    __slots__ = (
        "_complete",
        "_head",
        "_is_head_request",
        "_overhead_bytes",
        "_parser",
        "_pool",
        "_request",
        "_reusable",
        "_sink",
        "idle_since",
        "paused",
        "reused",
        "transport",
    )

    def __init__(self, pool: ConnectionOwner) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._sink: ResponseSink | None = None
        self._head: ResponseHead | None = None
        self._request: tuple[bytes, ...] = ()
        """The request, kept on a reused connection to send it again if the server had already closed."""
        self._is_head_request = False
        self._overhead_bytes = 0
        """Received since the last byte of a body."""
        self._complete = False
        self._reusable = True
        self.paused = False
        self.reused = False
        self.idle_since = 0.0
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    def send(self, sink: ResponseSink, request: tuple[bytes, ...]) -> None:
        """Send one request; the response goes to the sink."""
        self._sink = sink
        self._head = None
        self._complete = False
        self._overhead_bytes = 0
        self._request = request if self.reused else ()
        self._is_head_request = request[0].startswith(b"HEAD ")
        sink.connection = self
        for part in request:
            self.transport.write(part)
        sink.sent()

    def abort(self) -> None:
        """Drop the request and cut the connection, so that the server can stop working on it."""
        if self._sink is not None:
            self._sink.connection = None
            self._sink = None
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Continue reading."""
        if self.paused and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()

    # --- asyncio callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes and deliver them to the sink."""
        sink = self._sink
        if sink is None:
            self.transport.abort()
            return
        self._pool.last_received_at = time.monotonic()
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserUpgrade) and self._switch(data[error.args[0] :]):
                return
            self._reusable = False
            if not self._complete or self._has_forbidden_body():
                kind = "not_final" if isinstance(error, httptools.HttpParserUpgrade) else "malformed"
                self._fail(UpstreamError(kind, f"the server's answer is not HTTP/1.1: {error}"))
                self.transport.abort()
                return
        if self._head is not None and 0 < self._head.status < 100:
            self._fail(UpstreamError("not_final", f"the server answered with status {self._head.status}"))
            self.transport.abort()
            return
        if self._complete:
            self._finish()
        elif self._overhead_bytes > _OVERHEAD_BYTES_MAX:
            message = f"the server sent over {_OVERHEAD_BYTES_MAX} bytes without a byte of a body"
            self._fail(UpstreamError("malformed", message))
            self.transport.abort()
        elif self._sink is not None:
            sink.flush()

    def eof_received(self) -> bool:
        """The server sends no more. True keeps the connection open for a moment.

        A server that ends an idle connection may shut it down first and close it later. If a request arrived in
        between, the close resets the connection, and the reset proves that the request was not read.
        """
        waits = self._sink is not None and self._head is None and bool(self._request)
        if not waits or self.transport.get_extra_info("sslcontext") is not None:
            return False
        asyncio.get_running_loop().call_later(_RESET_SECONDS, self.transport.abort)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: the end of a response without a length, an error, or an idle timeout."""
        self._reusable = False
        sink, head = self._sink, self._head
        if sink is None:
            self._pool.discard(self)
        elif head is not None and head.ends_at_close and exc is None:
            self._finish()
        elif head is None and self._request and self._was_not_read(exc):
            self._sink = sink.connection = None
            self._pool.discard(self)
            self._pool.submit(sink, self._request, fresh=True)
        else:
            self._fail(
                UpstreamError(
                    "closed", "the model server closed the connection before its answer was complete"
                )
            )

    def lost(self) -> None:
        """The connection is closed, after it was given to a sink."""
        self._pool.discard(self)

    def _switch(self, early: bytes) -> bool:
        """Give the connection to a sink that has asked for another protocol."""
        sink, head = self._sink, self._head
        if head is None or head.status != 101 or not isinstance(sink, SwitchingSink):
            return False
        self._sink, self._request = None, ()
        sink.connection = None
        self.resume()
        self.transport.set_protocol(sink.switched(head, self, early))
        return True

    # --- parser callbacks

    def on_message_begin(self) -> None:
        """Start a response. A second response to one request is an error of the server."""
        if self._complete:
            self._reusable = False
        else:
            self._head = ResponseHead()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field."""
        head = self._head
        if head is None or self._complete or head.status:
            return
        name = name.lower()
        head.headers.append((name, value))
        if name == b"content-length":
            head.length = int(value)
        elif name == b"transfer-encoding":
            head.chunked = value.lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """Deliver the head, unless the response is interim (1xx)."""
        head, sink = self._head, self._sink
        if head is None or self._complete:
            return
        head.status = self._parser.get_status_code()
        if head.status < 200:
            return
        self._reusable = self._parser.should_keep_alive()
        self._request = ()  # the server has read it
        if sink is not None:
            sink.head(head)
        if self._is_head_request:
            # The parser expects the body that the length announces, so it cannot read another response.
            self._complete, self._reusable = True, False

    def on_body(self, data: bytes) -> None:
        """Deliver a piece of the body."""
        self._overhead_bytes = 0
        if self._sink is not None and not self._complete:
            self._sink.body(data)

    def on_message_complete(self) -> None:
        """The response is complete, unless it was interim."""
        if self._head is not None and self._head.status >= 200:
            self._complete = True

    # --- the end of a request

    def _has_forbidden_body(self) -> bool:
        """Whether bytes follow a head that announces a body where none may be."""
        head = self._head
        return head is not None and head.status in BODILESS and bool(head.length)

    def _was_not_read(self, exc: Exception | None) -> bool:
        """Whether the server closed before it had read the whole request.

        Then its kernel rejects the bytes: with EPIPE if they come after the close, with a reset if they were waiting
        to be read. A model server that crashes on a request that it has read closes without either, so such a request
        is never sent twice.
        """
        if exc is None:
            known: socket.socket | None = self.transport.get_extra_info("socket")
            return known is not None and known.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE
        return isinstance(exc, BrokenPipeError | ConnectionResetError)

    def _finish(self) -> None:
        sink, self._sink = self._sink, None
        self._request = ()
        if sink is not None:
            sink.connection = None
        self.resume()
        # With a response before the end of the request, the server may never read the rest.
        is_sent = not self.transport.get_write_buffer_size()
        self._pool.release(self, reusable=self._reusable and is_sent and not self.transport.is_closing())
        if sink is not None:
            sink.end()

    def _fail(self, fault: UpstreamError) -> None:
        sink, self._sink = self._sink, None
        self._request = ()
        self._pool.discard(self)
        if sink is not None:
            sink.connection = None
            sink.fault(fault)
