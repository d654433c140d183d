"""Socket options."""

import asyncio
import socket
import struct
from collections.abc import Iterable

_KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Seconds idle, seconds between probes, failed probes: a lost peer is detected within a minute."""


def enable_keepalive(listening: Iterable[socket.socket]) -> None:
    """Enable TCP keep-alive. Accepted sockets inherit it.

    A client whose network is gone sends no FIN, and its request would run to its end. Keep-alive traffic also
    keeps the entry in a NAT router alive.
    """
    for listener in listening:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # not on every platform
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reset_when_closed(transport: asyncio.Transport, *, reset: bool) -> None:
    """Send RST instead of FIN on close, so that the peer sees a broken connection; or FIN again."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
