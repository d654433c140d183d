"""Socket options."""

import asyncio
import socket
import struct
from collections.abc import Iterable

_KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Seconds idle, seconds between probes, failed probes: a lost peer is detected within a minute."""

_CLOSED_STATES = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT of Linux, in the first byte of TCP_INFO."""


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


def is_closed_by_peer(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed or reset the connection, even if bytes before that are unread. Linux only."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _CLOSED_STATES
