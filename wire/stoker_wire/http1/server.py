"""The HTTP server: listening sockets, connection registry and timer."""

import asyncio
import contextlib
import ssl
import time
from collections import OrderedDict

from stoker_wire.errors.problem import Problem
from stoker_wire.http1.limits import Limits, connections_possible
from stoker_wire.http1.messages import Header, problem_fields, problem_json
from stoker_wire.http1.request import Request
from stoker_wire.http1.request_reader import BudgetOf, RequestMemory
from stoker_wire.http1.server_connection import Application, DescribeProblem, ServerConnection
from stoker_wire.http1.sockets import enable_keepalive
from stoker_wire.http1.tls_listener import TlsListener

_TICK_SECONDS, _TICK_SECONDS_MAX = 0.25, 1.0
_TICKED_PER_SECOND = 20_000
"""With more connections, ticks come less often."""
_ABSENT_SECONDS = 5.0
"""A longer time between two ticks means that this process was suspended. Its clients could not proceed either."""
_GRACE_SECONDS = 10.0
"""After a suspension no connection expires for this time."""
_BACKLOG = 1024


class HttpServer:
    """Listens, limits the number of connections and expires them."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        *,
        budget_of: BudgetOf | None = None,
        describe: DescribeProblem | None = None,
        connections_max: int | None = None,
    ) -> None:
        """
        Args:
            budget_of: the budget of a request's body; None: the limits are the budget of all bodies.
            describe: a problem's response; None: stoker's usual one.
            connections_max: replaces the limits' number, which is bounded by open files for two sockets each.
        """
        self.application = application
        self.limits = limits
        self.memory = RequestMemory(limits.body_bytes_max, limits.bodies_bytes_max)
        self.budget_of = budget_of
        self.describe = describe or _describe
        self.closing = False
        """While true, every response closes its connection."""
        self._connections: set[ServerConnection] = set()
        self._idle: OrderedDict[ServerConnection, None] = OrderedDict()
        """Connections that wait for a request, the longest idle first."""
        self._connections_max = connections_max or min(limits.connections_max, connections_possible())
        self._listeners: list[asyncio.Server | TlsListener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ticked_at = time.monotonic()
        self._expires_from = float("-inf")
        self._emptied = asyncio.Event()

    async def listen(self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen on one more address; `port` 0 takes a free one. Returns the port."""
        loop = asyncio.get_running_loop()
        if tls is None:
            plain = await loop.create_server(self._new_connection, host, port, backlog=_BACKLOG)
            enable_keepalive(plain.sockets)
            self._listeners.append(plain)
            port = int(plain.sockets[0].getsockname()[1])
        else:
            listener = TlsListener(tls, self._new_connection, self.limits)
            port = await listener.listen(host, port, backlog=_BACKLOG)
            self._listeners.append(listener)
        if self._timer is None:
            self._timer = loop.call_later(_TICK_SECONDS, self._tick)
        return port

    def stop_listening(self) -> None:
        """Take no more connections, close the idle ones, and the others after their response."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._idle):
            connection.transport.close()

    async def drain(self, seconds_max: float) -> None:
        """Wait until every connection has ended, after `stop_listening`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()

    async def close(self, flush_seconds: float) -> None:
        """Stop listening, send what is written for at most `flush_seconds`, then abort the remaining connections."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            # A second close() of an asyncio TLS transport would make its abort() fail.
            if not connection.transport.is_closing():
                connection.transport.close()
        await self.drain(flush_seconds)
        for connection in list(self._connections):
            connection.transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        for listener in self._listeners:
            await listener.wait_closed()

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def handshakes(self) -> int:
        """TLS handshakes in progress; `connections` does not count them."""
        return sum(each.handshakes for each in self._listeners if isinstance(each, TlsListener))

    def admit(self, connection: ServerConnection) -> bool:
        """Register a new connection, evicting the longest idle one if needed. False when too many are active."""
        self._connections.add(connection)
        if len(self._connections) > self._connections_max:
            if not self._idle:
                return False
            oldest, _ = self._idle.popitem(last=False)
            self._connections.discard(oldest)
            oldest.evict()
        self._idle[connection] = None
        return True

    def mark_active(self, connection: ServerConnection) -> None:
        """A request has begun on the connection."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: ServerConnection) -> None:
        """The connection waits for its next request."""
        if connection in self._connections:
            self._idle[connection] = None

    def remove(self, connection: ServerConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        if not self._connections:
            self._emptied.set()

    def _new_connection(self) -> asyncio.Protocol:
        return ServerConnection(self)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at > _ABSENT_SECONDS:
            self._expires_from = now + _GRACE_SECONDS
        self._ticked_at = now
        for connection in list(self._connections) if now >= self._expires_from else ():
            connection.expire(now)
        # A tick takes half a microsecond for each connection.
        seconds = min(_TICK_SECONDS_MAX, max(_TICK_SECONDS, len(self._connections) / _TICKED_PER_SECOND))
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)


def _describe(problem: Problem, _: Request) -> tuple[bytes, tuple[Header, ...]]:
    return problem_json(problem), problem_fields(problem)
