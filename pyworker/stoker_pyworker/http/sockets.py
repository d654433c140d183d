"""What is set on the sockets beneath transports."""

import asyncio
import socket
import struct
from collections.abc import Iterable

_KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Seconds of silence, seconds between questions, questions without an answer: who is gone is found so within a minute."""


def ask_in_silence(listening: Iterable[socket.socket]) -> None:
    """Have clients' kernels asked whether they are still there while nothing is said; accepted sockets inherit it.

    A client whose network is gone says nothing of leaving, and its request would run to its end; one that waits long
    behind a router would be forgotten by it.
    """
    for known in listening:
        known.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # not on every platform
                known.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reset_when_closed(transport: asyncio.Transport) -> None:
    """Have the peer see a broken connection, where an orderly close would say that all is sent."""
    known: socket.socket | None = transport.get_extra_info("socket")
    if known is not None:
        known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
