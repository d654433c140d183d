"""A TLS listener that limits the number and duration of handshakes.

The TLS server of an event loop reports a connection only after its handshake. A peer that starts a handshake and
then stops would hold a socket that no limit counts. So this listener accepts the sockets itself.
"""

import asyncio
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import structlog

from stoker_wire.http1.limits import Limits, handshakes_possible
from stoker_wire.http1.sockets import enable_keepalive

log = structlog.get_logger(component="http")

_PAUSE_SECONDS = 0.2
"""After a failed accept, most likely for lack of file descriptors."""


class TlsListener:
    """Accepts connections and attaches a protocol after the handshake. At the limit, the oldest handshake is cut."""

    def __init__(
        self, tls: ssl.SSLContext, new_protocol: Callable[[], asyncio.Protocol], limits: Limits
    ) -> None:
        self._tls = tls
        self._new_protocol = new_protocol
        self._limits = limits
        self._handshakes_max = min(limits.handshakes_max, handshakes_possible())
        self._handshakes: OrderedDict[asyncio.Task[bool], None] = OrderedDict()
        self._accepting: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<TlsListener {self.handshakes} of {self._handshakes_max} handshakes>"

    @property
    def handshakes(self) -> int:
        """Handshakes in progress."""
        return len(self._handshakes)

    async def listen(self, host: str | None, port: int, *, backlog: int) -> int:
        """Listen on every address of the host; `port` 0 takes a free one. Returns the port.

        Raises:
            OSError: the address is in use or not local.
        """
        sockets = await _bound_sockets(host, port)
        enable_keepalive(sockets)
        for one in sockets:
            one.listen(backlog)
            self._accepting.append(asyncio.create_task(self._accept(one)))
        return int(sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop accepting and abort the handshakes in progress."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the listening sockets are closed."""
        await asyncio.wait((*self._accepting, *self._handshakes))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    peer, _ = await loop.sock_accept(listening)
                except OSError as fault:
                    log.warning("accept_failed", error=str(fault))
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                self._start_handshake(peer)
                await asyncio.sleep(0)  # sock_accept does not yield while connections are queued

    def _start_handshake(self, peer: socket.socket) -> None:
        if len(self._handshakes) >= self._handshakes_max:
            self._handshakes.popitem(last=False)[0].cancel()
        peer.setblocking(False)
        task = asyncio.create_task(self._handshake(peer))
        self._handshakes[task] = None
        task.add_done_callback(partial(self._handshake_ended, peer))

    async def _handshake(self, peer: socket.socket) -> bool:
        """Whether the handshake succeeded and the protocol owns the socket."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._new_protocol,
                peer,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.head_seconds_max,
                ssl_shutdown_timeout=self._limits.linger_seconds,
            )
        except OSError:  # not TLS, too slow, or disconnected
            return False
        return True

    def _handshake_ended(self, peer: socket.socket, task: asyncio.Task[bool]) -> None:
        self._handshakes.pop(task, None)
        if task.cancelled() or not task.result():
            peer.close()


async def _bound_sockets(host: str | None, port: int) -> list[socket.socket]:
    """Sockets bound as the event loop binds them, but not listening yet."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    sockets = [socket.socket(fileno=os.dup(one.fileno())) for one in server.sockets]
    server.close()
    for one in sockets:
        one.setblocking(False)
    return sockets
