"""Response generators written for the official package answer with aiohttp's objects; here they become ours.

aiohttp itself is not imported: the user's worker file is who has it. A whole answer is read by its attributes; a
streamed one writes to what its request gives it as payload writer, which is `ClientWriter`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stoker_pyworker.http.messages import header_fields

if TYPE_CHECKING:
    from stoker_pyworker.proxy.hooks import ClientRequest

OURS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})
"""Said by the worker's own server."""


class ClientWriter:
    """What an aiohttp response writes its head and its pieces to (aiohttp's `AbstractStreamWriter`)."""

    def __init__(self, request: "ClientRequest") -> None:
        self._request = request
        self.length: int | None = None
        self.buffer_size = 0
        self.output_size = 0

    def enable_chunking(self) -> None:
        """The worker's server frames the body itself."""

    def enable_compression(self, encoding: str = "deflate", **_: Any) -> None:
        """Not offered: a stream is passed on as it comes."""
        raise RuntimeError(f"compression ({encoding}) of a response generator's answer is not supported")

    async def write_headers(self, status_line: str, headers: Mapping[str, str]) -> None:
        """Begin the answer."""
        status = int(status_line.split(" ", 2)[1])
        theirs = {name: value for name, value in headers.items() if name.lower() not in OURS}
        self._request.start(status, header_fields(theirs, "utf-8"))

    def send_headers(self) -> None:
        """They are sent already."""

    async def write(self, data: bytes, **_: Any) -> None:
        """A piece; waits while the client is behind."""
        if data:
            self.output_size += len(data)
            await self._request.send(bytes(data))

    async def write_eof(self, data: bytes = b"") -> None:
        """The last piece; the worker ends the answer when the hook returns."""
        await self.write(data)

    async def drain(self) -> None:
        """Wait while the client is behind."""
        await self._request.room.wait()
