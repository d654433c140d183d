"""The client's side of HTTP/1.1: connections to one origin, kept open, bounded, each with one request at a time."""

import asyncio
import errno
import socket
import ssl
import time
from collections import deque
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from stoker_pyworker.http.messages import Header
from stoker_wire.picklable import PicklableError


class OriginFault(PicklableError, Exception):
    """The origin did not answer: `connect` (nobody listens), `closed` (cut before the end) or `malformed`."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Head:
    """Status and header fields of an answer; field names in lower case."""

    __slots__ = ("chunked", "headers", "length", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.length: int | None = None
        self.chunked = False

    @property
    def closes(self) -> bool:
        """Whether closing ends the answer. Of an interim head (1xx) and of half a head (status 0) it never does."""
        return self.status >= 200 and self.length is None and not self.chunked

    def header(self, name: bytes) -> bytes | None:
        """The field's first value, or None; `name` in lower case."""
        for known, value in self.headers:
            if known == name:
                return value
        return None


class Sink(Protocol):
    """Whoever waits for an answer. Calls come in order: head, body pieces, then end or fault."""

    connection: "OutgoingConnection | None"
    """Set by the pool while a connection works for this sink."""

    def sent(self) -> None:
        """The request was given to a connection."""

    def head(self, head: Head) -> None:
        """Status and header fields are there."""

    def body(self, data: bytes) -> None:
        """A piece of the body."""

    def flush(self) -> None:
        """The pieces of one read are all handed over, and more will come."""

    def end(self) -> None:
        """The answer is complete."""

    def fault(self, fault: OriginFault) -> None:
        """There will be no (more) answer."""


class OutgoingConnection(asyncio.Protocol):
    """One connection to the origin."""

    __slots__ = (
        "_ended",
        "_head",
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

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._head: Head | None = None
        self._request: tuple[bytes, ...] = ()
        self._ended = False
        self.paused = False
        self._reusable = True
        self.reused = False
        self.idle_since = 0.0
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, sink: Sink, request: tuple[bytes, ...]) -> None:
        """Send one request; the answer goes to the sink."""
        self._sink = sink
        self._head = None
        self._ended = False
        self._request = request if self.reused else ()
        sink.connection = self
        for part in request:
            self.transport.write(part)
        sink.sent()

    def abort(self) -> None:
        """Drop the request: the origin sees its connection cut and can stop working."""
        if self._sink is not None:
            self._sink.connection = None
            self._sink = None
        self.transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()

    # --- what asyncio tells us

    def data_received(self, data: bytes) -> None:
        """Parse what came and hand it on."""
        sink = self._sink
        if sink is None:
            self.transport.abort()
            return
        self._pool.heard_at = time.monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self._reusable = False
            if not self._ended:
                self._fail(OriginFault("malformed", f"the model server's answer is not HTTP/1.1: {fault}"))
                self.transport.abort()
                return
        if self._ended:
            self._finish()
        elif self._sink is not None:
            sink.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The origin closed: the end of an answer without a length, a fault, or just idle too long."""
        self._reusable = False
        sink, head = self._sink, self._head
        if sink is None:
            self._pool.lost(self)
        elif head is not None and head.closes and exc is None:
            self._finish()
        elif head is None and self._request and self._unread(exc):
            self._sink = sink.connection = None
            self._pool.lost(self)
            self._pool.submit(sink, self._request, fresh=True)
        else:
            self._fail(
                OriginFault("closed", "the model server closed the connection before its answer was complete")
            )

    # --- what the parser tells us

    def on_message_begin(self) -> None:
        """An answer starts; a second one to a single request is a server's mistake."""
        if self._ended:
            self._reusable = False
        else:
            self._head = Head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field."""
        head = self._head
        if head is None or self._ended or head.status:
            return
        name = name.lower()
        head.headers.append((name, value))
        if name == b"content-length":
            head.length = int(value)
        elif name == b"transfer-encoding":
            head.chunked = value.lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """The answer's head is complete; an interim answer (1xx) is not the answer."""
        head, sink = self._head, self._sink
        if head is None or self._ended:
            return
        head.status = self._parser.get_status_code()
        if head.status < 200:
            return
        self._reusable = self._parser.should_keep_alive()
        if sink is not None:
            sink.head(head)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._sink is not None and not self._ended:
            self._sink.body(data)

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self._head is not None and self._head.status >= 200:
            self._ended = True

    # --- inside

    def _unread(self, exc: Exception | None) -> bool:
        """Whether the origin had closed before it got our request: its kernel then refuses the bytes, which is EPIPE.

        A model server that dies of a request also just closes, and as fast: only that tells which of the two it was,
        and a request that was read is never sent twice.
        """
        if exc is None:
            known: socket.socket | None = self.transport.get_extra_info("socket")
            return known is not None and known.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE
        return isinstance(exc, BrokenPipeError)

    def _finish(self) -> None:
        sink, self._sink = self._sink, None
        self._request = ()
        if sink is not None:
            sink.connection = None
        self.resume()
        self._pool.release(self, reusable=self._reusable and not self.transport.is_closing())
        if sink is not None:
            sink.end()

    def _fail(self, fault: OriginFault) -> None:
        sink, self._sink = self._sink, None
        self._request = ()
        self._pool.lost(self)
        if sink is not None:
            sink.connection = None
            sink.fault(fault)


class Pool:
    """The connections to one origin: at most `connections_max`, the most recently used first."""

    def __init__(
        self,
        origin: str,
        *,
        connections_max: int = 1024,
        idle_seconds_max: float = 4.0,
        connect_seconds_max: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._origin = origin
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"an address like http://127.0.0.1:8000 was expected, {origin!r} came")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = f"{parts.hostname}:{self.port}".encode()
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connections_max = connections_max
        # Below the 5 s after which common model servers close an idle connection themselves.
        self._idle_seconds_max = idle_seconds_max
        self._connect_seconds_max = connect_seconds_max
        self._idle: list[OutgoingConnection] = []
        self._open: set[OutgoingConnection] = set()
        self._waiting: deque[tuple[Sink, tuple[bytes, ...]]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._apart: list[Pool] = []
        self.heard_at = float("-inf")
        """When the origin last sent a piece of an answer, monotonic clock."""

    def apart(self, connections_max: int) -> "Pool":
        """More connections to the same origin, for what must not wait behind requests; they close with this pool's."""
        pool = Pool(
            self._origin,
            connections_max=connections_max,
            idle_seconds_max=self._idle_seconds_max,
            connect_seconds_max=self._connect_seconds_max,
            tls=self._tls,
        )
        self._apart.append(pool)
        return pool

    def submit(self, sink: Sink, request: tuple[bytes, ...], *, fresh: bool = False) -> None:
        """Send the request now on an idle connection, or as soon as there is one."""
        # Who waits although there is an idle connection waits for a fresh one, and is not overtaken.
        if not fresh and (connection := self._take()) is not None:
            connection.send(sink, request)
            return
        self._waiting.append((sink, request))
        self._open_one_more()

    def cancel(self, sink: Sink) -> None:
        """Drop the sink's request, sent or not."""
        if sink.connection is not None:
            sink.connection.abort()
            return
        for item in self._waiting:
            if item[0] is sink:
                self._waiting.remove(item)
                return

    def release(self, connection: OutgoingConnection, *, reusable: bool) -> None:
        """A connection has finished its request."""
        if not reusable:
            connection.transport.close()
            self.lost(connection)
            return
        connection.reused = True
        if self._waiting:
            connection.send(*self._waiting.popleft())
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def lost(self, connection: OutgoingConnection) -> None:
        """A connection is gone; who waits for one gets a new one."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if len(self._waiting) > len(self._connecting):
            self._open_one_more()

    def close(self) -> None:
        """Close every connection."""
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        self._open.clear()
        self._idle.clear()
        for pool in self._apart:
            pool.close()

    def close_idle(self) -> None:
        """Close the connections that serve no request."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._open.discard(connection)
            connection.transport.abort()

    @property
    def opened(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def running(self) -> int:
        """Requests that the origin has and has not answered in full."""
        return len(self._open) - len(self._idle)

    def _take(self) -> OutgoingConnection | None:
        """The most recently used idle connection; those that idled too long are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.transport.is_closing():
                continue
            if time.monotonic() - connection.idle_since <= self._idle_seconds_max:
                return connection
            # The last used is too old, so all are.
            stale, self._idle = [connection, *self._idle], []
            for old in stale:
                self._open.discard(old)
                old.transport.abort()
        return None

    def _open_one_more(self) -> None:
        if len(self._open) + len(self._connecting) < self._connections_max:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        """One new connection for whoever waits longest."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds_max):
                _, connection = await loop.create_connection(
                    lambda: OutgoingConnection(self), self.host, self.port, ssl=self._tls
                )
            if connection.transport.is_closing():
                raise ConnectionResetError("it was closed at once")
        except (OSError, UnicodeError) as fault:
            # A name that is none (UnicodeError) has nobody who takes connections either.
            reason = str(fault) or type(fault).__name__
            self._not_connected(
                OriginFault("connect", f"{self.host}:{self.port} takes no connection: {reason}")
            )
            return
        self._open.add(connection)
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    def _not_connected(self, fault: OriginFault) -> None:
        """Whoever waits longest has failed; so have all others, if they wait for a connection that will not come."""
        if (task := asyncio.current_task()) is not None:
            self._connecting.discard(task)
        failed = 1 if self._connecting or self._open else len(self._waiting)
        # Counted before: who asks again on hearing of it gets a try of its own.
        for _ in range(failed):
            if self._waiting:
                self._waiting.popleft()[0].fault(fault)
        while self._waiting and (connection := self._take()) is not None:
            connection.send(*self._waiting.popleft())
