"""A bounded pool of keep-alive connections to one server."""

import asyncio
import ssl
import time
from collections import deque
from urllib.parse import urlsplit

from stoker_wire.http1.upstream_connection import ResponseSink, UpstreamConnection, UpstreamError


class UpstreamPool:
    """At most `connections_max` connections to one origin. The most recently used idle connection is taken first."""

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
            raise ValueError(f"expected an address like http://127.0.0.1:8000, received {origin!r}")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = f"{host}:{self.port}".encode()
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connections_max = connections_max
        # Less than the 5 s after which common model servers close an idle connection.
        self._idle_seconds_max = idle_seconds_max
        self._connect_seconds_max = connect_seconds_max
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._waiting: deque[tuple[ResponseSink, tuple[bytes, ...]]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._separate_pools: list[UpstreamPool] = []
        self.last_received_at = float("-inf")
        """When the server last sent data of a response, monotonic clock."""

    def separate_pool(self, connections_max: int) -> "UpstreamPool":
        """A second pool to the same origin, for calls that must not wait behind requests. It closes with this pool."""
        pool = UpstreamPool(
            self._origin,
            connections_max=connections_max,
            idle_seconds_max=self._idle_seconds_max,
            connect_seconds_max=self._connect_seconds_max,
            tls=self._tls,
        )
        self._separate_pools.append(pool)
        return pool

    def submit(self, sink: ResponseSink, request: tuple[bytes, ...], *, fresh: bool = False) -> None:
        """Send the request now on an idle connection, or as soon as one is available; `fresh` requires a new one."""
        # Requests that are queued despite an idle connection need a fresh one; this one may overtake them.
        if not fresh and (connection := self._take_idle()) is not None:
            connection.send(sink, request)
            return
        self._waiting.append((sink, request))
        self._start_connect()

    def cancel(self, sink: ResponseSink) -> None:
        """Drop the sink's request, sent or not."""
        if sink.connection is not None:
            sink.connection.abort()
            return
        for item in self._waiting:
            if item[0] is sink:
                self._waiting.remove(item)
                return

    def release(self, connection: UpstreamConnection, *, reusable: bool) -> None:
        """A connection has finished its request."""
        if not reusable:
            connection.transport.abort()
            self.discard(connection)
            return
        connection.reused = True
        self._use_or_idle(connection)

    def discard(self, connection: UpstreamConnection) -> None:
        """Forget a closed connection; open another one if requests wait."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if len(self._waiting) > len(self._connecting):
            self._start_connect()

    def close(self) -> None:
        """Close every connection."""
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.transport.abort()
        self._open.clear()
        self._idle.clear()
        for pool in self._separate_pools:
            pool.close()

    def close_expired(self) -> None:
        """Close the connections that have been idle for too long."""
        while self._idle and time.monotonic() - self._idle[0].idle_since > self._idle_seconds_max:
            connection = self._idle.pop(0)
            self._open.discard(connection)
            connection.transport.abort()

    @property
    def is_unused(self) -> bool:
        """Whether it has neither a connection nor a request."""
        return not (self._open or self._connecting or self._waiting)

    def close_idle(self) -> None:
        """Close the connections without a request."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._open.discard(connection)
            connection.transport.abort()

    @property
    def open_count(self) -> int:
        """Open connections."""
        return len(self._open)

    @property
    def active_count(self) -> int:
        """Requests that the server has not answered completely."""
        return len(self._open) - len(self._idle)

    def _take_idle(self) -> UpstreamConnection | None:
        """The most recently used idle connection. Closes connections that were idle too long."""
        while self._idle:
            connection = self._idle.pop()
            if connection.transport.is_closing():
                continue
            if time.monotonic() - connection.idle_since <= self._idle_seconds_max:
                return connection
            # The most recently used connection is too old, so all others are too.
            self._idle.append(connection)
            self.close_idle()
        return None

    def _use_or_idle(self, connection: UpstreamConnection) -> None:
        """Send the oldest queued request on the connection, or keep the connection for the next one."""
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    def _start_connect(self) -> None:
        if len(self._open) + len(self._connecting) < self._connections_max:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        """Open one connection for the oldest queued request."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds_max):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self), self.host, self.port, ssl=self._tls
                )
            if connection.transport.is_closing():
                raise ConnectionResetError("it was closed at once")
        except (OSError, UnicodeError) as fault:  # UnicodeError: an invalid host name
            reason = str(fault) or type(fault).__name__
            failed = UpstreamError("connect", f"{self.host}:{self.port} takes no connection: {reason}")
            failed.__cause__ = fault
            self._connect_failed(failed)
            return
        self._open.add(connection)
        self._use_or_idle(connection)

    def _connect_failed(self, fault: UpstreamError) -> None:
        """Fail the oldest queued request, or all of them if no other connection is open or pending."""
        if (task := asyncio.current_task()) is not None:
            self._connecting.discard(task)
        # Counted first: a request submitted from a fault callback gets its own attempt.
        failed = 1 if self._connecting or self._open else len(self._waiting)
        for _ in range(failed):
            if self._waiting:
                self._waiting.popleft()[0].fault(fault)
        while self._waiting and (connection := self._take_idle()) is not None:
            connection.send(*self._waiting.popleft())
