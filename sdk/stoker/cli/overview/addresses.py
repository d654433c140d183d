"""Whether an address resolves and takes connections, within a time limit that a slow resolver cannot exceed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from urllib.parse import urlsplit

CONNECT_SECONDS_MAX = 5.0


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of an http(s) address."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


async def resolve(host: str) -> list[str]:
    """The host's IP addresses.

    The lookup runs in a daemon thread: a thread of the event loop's executor would delay the end of the process until
    the resolver gives up.

    Raises:
        OSError: the name does not resolve.
        TimeoutError: no answer within CONNECT_SECONDS_MAX.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], fault: OSError | None) -> None:
        if answer.done():
            return
        if fault is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(fault)

    def look_up() -> None:
        addresses: list[str] = []
        failed: OSError | None = None
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
        except (OSError, UnicodeError) as fault:
            failed = fault if isinstance(fault, OSError) else OSError(f"{host!r:.80} is not a host name")
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(settle, addresses, failed)

    threading.Thread(target=look_up, daemon=True, name="resolver").start()
    async with asyncio.timeout(CONNECT_SECONDS_MAX):
        return await answer


async def connection_fault(url: str) -> str:
    """Why no connection could be made; empty: one could."""
    host, port = host_and_port(url)
    try:
        addresses = await resolve(host)
    except (OSError, TimeoutError) as fault:
        return f"the host of {url} does not resolve here: {_reason(fault)}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, writer = await asyncio.open_connection(addresses[0], port)
    except (OSError, TimeoutError) as fault:
        return f"{url} cannot be reached from here: {_reason(fault)}"
    writer.close()
    return ""


def _reason(fault: Exception) -> str:
    return str(getattr(fault, "strerror", None) or fault) or "no answer in time"
