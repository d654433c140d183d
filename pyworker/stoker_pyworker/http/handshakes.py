"""A listener on TLS whose handshakes under way are bounded in number and time, like the connections that come of them.

An event loop's own server on TLS tells of a connection only once its handshake is done: whoever begins one and says no
more would be in nobody's count, and hold a socket. So the sockets are accepted here.
"""

import asyncio
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import structlog

from stoker_pyworker.http.limits import Limits, handshakes_possible
from stoker_pyworker.http.sockets import ask_in_silence

log = structlog.get_logger(room="http")

_PAUSE_SECONDS = 0.2
"""After an accept that failed: most likely no file is left, and one may be soon."""


class TlsListener:
    """Accepts, and has `make`'s protocol take over what has said hello. Of too many that do not, the first makes room."""

    def __init__(self, tls: ssl.SSLContext, make: Callable[[], asyncio.Protocol], limits: Limits) -> None:
        self._tls = tls
        self._make = make
        self._limits = limits
        self._most = min(limits.handshakes_max, handshakes_possible())
        self._under_way: OrderedDict[asyncio.Task[bool], None] = OrderedDict()
        self._accepting: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<TlsListener {self.handshakes} of {self._most} handshakes>"

    @property
    def handshakes(self) -> int:
        """Those under way."""
        return len(self._under_way)

    async def listen(self, host: str | None, port: int, *, backlog: int) -> int:
        """On every address of the host; `port` 0 takes a free one. Returns the port.

        Raises:
            OSError: the address is taken or not ours.
        """
        sockets = await _bound(host, port)
        ask_in_silence(sockets)
        for one in sockets:
            one.listen(backlog)
            self._accepting.append(asyncio.create_task(self._accept(one)))
        return int(sockets[0].getsockname()[1])

    def close(self) -> None:
        """Accept no more, and cut the handshakes: nothing was asked yet."""
        for task in (*self._accepting, *self._under_way):
            task.cancel()

    async def wait_closed(self) -> None:
        """Until its sockets are closed."""
        await asyncio.wait((*self._accepting, *self._under_way))

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
                self._begin(peer)
                await asyncio.sleep(0)  # while more are there to accept, it would never wait

    def _begin(self, peer: socket.socket) -> None:
        if len(self._under_way) >= self._most:
            self._under_way.popitem(last=False)[0].cancel()
        peer.setblocking(False)
        task = asyncio.create_task(self._shake_hands(peer))
        self._under_way[task] = None
        task.add_done_callback(partial(self._ended, peer))

    async def _shake_hands(self, peer: socket.socket) -> bool:
        """Whether TLS stands, and the protocol has it."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                peer,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.head_seconds_max,
                ssl_shutdown_timeout=self._limits.linger_seconds,
            )
        except OSError:  # no TLS, too slow, or gone
            return False
        return True

    def _ended(self, peer: socket.socket, task: asyncio.Task[bool]) -> None:
        self._under_way.pop(task, None)
        if task.cancelled() or not task.result():
            peer.close()


async def _bound(host: str | None, port: int) -> list[socket.socket]:
    """Sockets bound as the loop itself would bind them, but ours to accept from."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    sockets = [socket.socket(fileno=os.dup(one.fileno())) for one in server.sockets]
    server.close()
    for one in sockets:
        one.setblocking(False)
    return sockets
