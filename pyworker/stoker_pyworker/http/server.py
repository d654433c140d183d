"""The connections of one server: listening, counting, and their clock."""

import asyncio
import ssl
import time
from collections import OrderedDict

from stoker_pyworker.http.connection import Application, ClientConnection
from stoker_pyworker.http.handshakes import TlsListener
from stoker_pyworker.http.limits import Limits, connections_possible
from stoker_pyworker.http.sockets import ask_in_silence

_TICK_SECONDS = 0.25
_BACKLOG = 1024


class HttpServer:
    """Listens, counts its connections and keeps their time."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self.application = application
        self.limits = limits
        self.closing = False
        """While true, every answer closes its connection."""
        self.held_bytes = 0
        """Requests in memory, their bodies above all."""
        self._connections: set[ClientConnection] = set()
        self._idle: OrderedDict[ClientConnection, None] = OrderedDict()
        """Connections that wait for a request, those that have done so longest first."""
        self._connections_max = min(limits.connections_max, connections_possible())
        self._listeners: list[asyncio.Server | TlsListener] = []
        self._clock: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    async def listen(self, host: str | None, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen on one more address; `port` 0 takes a free one. Returns the port."""
        loop = asyncio.get_running_loop()
        if tls is None:
            plain = await loop.create_server(self._connection, host, port, backlog=_BACKLOG)
            ask_in_silence(plain.sockets)
            self._listeners.append(plain)
            port = int(plain.sockets[0].getsockname()[1])
        else:
            guarded = TlsListener(tls, self._connection, self.limits)
            port = await guarded.listen(host, port, backlog=_BACKLOG)
            self._listeners.append(guarded)
        if self._clock is None:
            self._clock = loop.call_later(_TICK_SECONDS, self._tick)
        return port

    async def close(self, flush_seconds: float) -> None:
        """Stop listening; what is written still goes out, for as long as that; then cut what is left."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.transport.close()
        try:
            async with asyncio.timeout(flush_seconds):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.transport.abort()
        if self._clock is not None:
            self._clock.cancel()
        for listener in self._listeners:
            await listener.wait_closed()

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return len(self._connections)

    @property
    def handshakes(self) -> int:
        """Connections whose TLS handshake is under way; `connections` does not count them."""
        return sum(each.handshakes for each in self._listeners if isinstance(each, TlsListener))

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection; the one that idled longest makes room. False when there are too many at work."""
        self._connections.add(connection)
        if len(self._connections) > self._connections_max:
            if not self._idle:
                return False
            oldest, _ = self._idle.popitem(last=False)
            self._connections.discard(oldest)
            oldest.make_room()
        self._idle[connection] = None
        return True

    def works(self, connection: ClientConnection) -> None:
        """A request has begun on the connection."""
        self._idle.pop(connection, None)

    def idles(self, connection: ClientConnection) -> None:
        """The connection waits for its next request."""
        if connection in self._connections:
            self._idle[connection] = None

    def forget(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        if not self._connections:
            self._emptied.set()

    def _connection(self) -> asyncio.Protocol:
        return ClientConnection(self)

    def _tick(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.expire(now)
        self._clock = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
