"""Accepts the aiohttp responses of hooks that were written for the official package.

This module does not import aiohttp: only the user's worker file needs it. A complete response is read by its
attributes. A streamed one writes to the payload writer of its request, which is `ClientWriter`.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from stoker_wire.http1.messages import Header, header_fields

SERVER_FIELDS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})
"""Header fields that the worker's own server sets."""


class StreamTarget(Protocol):
    """The client's request, to which a streamed response is written."""

    writable: asyncio.Event

    def start(self, status: int, fields: tuple[Header, ...]) -> None:
        """Start the response."""

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body."""


class ClientWriter:
    """The writer of an aiohttp response (aiohttp's `AbstractStreamWriter`)."""

    def __init__(self, request: StreamTarget) -> None:
        self._request = request
        self.length: int | None = None
        self.buffer_size = 0
        self.output_size = 0

    def enable_chunking(self) -> None:
        """Ignored: the worker's server frames the body."""

    def enable_compression(self, encoding: str = "deflate", **_: Any) -> None:
        """Not supported."""
        raise RuntimeError(f"compression ({encoding}) of a response generator's answer is not supported")

    async def write_headers(self, status_line: str, headers: Mapping[str, str]) -> None:
        """Start the response."""
        status = int(status_line.split(" ", 2)[1])
        fields = {name: value for name, value in headers.items() if name.lower() not in SERVER_FIELDS}
        self._request.start(status, header_fields(fields, "utf-8"))

    def send_headers(self) -> None:
        """Ignored: `write_headers` has sent them."""

    async def write(self, data: bytes, **_: Any) -> None:
        """Send a piece. Waits while the client's write buffer is full."""
        if data:
            self.output_size += len(data)
            await self._request.send(bytes(data))

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the last piece. The worker ends the response when the hook returns."""
        await self.write(data)

    async def drain(self) -> None:
        """Wait until the client's write buffer has room."""
        await self._request.writable.wait()
