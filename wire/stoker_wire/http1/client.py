"""Awaitable requests over an upstream pool: reports, probes, benchmark runs and callbacks."""

import asyncio

from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection, UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

_RESPONSE_BYTES_MAX = 64 * 1024 * 1024


class ClientResponse:
    """A complete response."""

    __slots__ = ("body", "head")

    def __init__(self, head: ResponseHead, body: bytes) -> None:
        self.head = head
        self.body = body

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} {len(self.body)} B>"


class _BufferingSink:
    """Collects a response for one awaiting task."""

    __slots__ = ("_bytes", "_head", "_parts", "connection", "future")

    def __init__(self, future: asyncio.Future[ClientResponse]) -> None:
        self.future = future
        self.connection: UpstreamConnection | None = None
        self._head: ResponseHead | None = None
        self._parts: list[bytes] = []
        self._bytes = 0

    def sent(self) -> None:
        """Unused."""

    def head(self, head: ResponseHead) -> None:
        """Keep the head."""
        self._head = head

    def body(self, data: bytes) -> None:
        """Keep the piece, up to the size limit."""
        self._bytes += len(data)
        if self._bytes <= _RESPONSE_BYTES_MAX:
            self._parts.append(data)

    def flush(self) -> None:
        """Unused."""

    def end(self) -> None:
        """Complete the future."""
        if not self.future.done() and self._head is not None:
            self.future.set_result(ClientResponse(self._head, b"".join(self._parts)))

    def fault(self, fault: UpstreamError) -> None:
        """Fail the future."""
        if not self.future.done():
            self.future.set_exception(fault)


def request_bytes(
    pool: UpstreamPool,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> tuple[bytes, ...]:
    """A request as bytes on the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {pool.authority.decode()}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines += [f"content-type: {content_type}", f"content-length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""]).encode()
    return (head,) if not body else (head + body,)


async def fetch(
    pool: UpstreamPool,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    seconds_max: float | None,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> ClientResponse:
    """Send one request and await the complete response.

    Raises:
        UpstreamError: the connection was refused, or the response was incomplete.
        TimeoutError: no complete response within `seconds_max`; the request is dropped.
    """
    sink = _BufferingSink(asyncio.get_running_loop().create_future())
    try:
        async with asyncio.timeout(seconds_max):
            request = request_bytes(pool, method, path, body, content_type=content_type, headers=headers)
            pool.submit(sink, request)
            return await sink.future
    except BaseException:
        pool.cancel(sink)
        raise
