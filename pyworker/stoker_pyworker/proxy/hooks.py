"""The objects of a `response_generator`: the client's request, the model's response and the responses to return.

They offer the methods of the aiohttp objects that hooks of the official package use.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.aiohttp_compat import SERVER_FIELDS, ClientWriter
from stoker_wire.http1.messages import Header, header_fields
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection, UpstreamError

_BUFFER_BYTES = 256 * 1024


class Headers(Mapping[str, str]):
    """Header fields by case-insensitive name; the first value of each."""

    def __init__(self, headers: list[Header]) -> None:
        self._fields: dict[str, str] = {}
        for name, value in headers:
            self._fields.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class ClientRequest:
    """The client's request. Its body is the complete envelope."""

    def __init__(self, cycle: ResponseCycle) -> None:
        request = cycle.request
        self._cycle = cycle
        self.ended = False
        """The response is complete or cut. Later writes raise."""
        self.method = request.method.decode("latin-1")
        self.path = request.path.decode("latin-1")
        self.headers = Headers(request.headers)
        self.writable = asyncio.Event()
        """Set while the client's write buffer has room."""
        self.writable.set()
        # Attributes that an aiohttp response reads from its request.
        self.version = (1, 1)
        self.keep_alive = True
        self._payload_writer = ClientWriter(self)

    async def _prepare_hook(self, response: Any) -> None:
        """Ignored: aiohttp runs the signals of its application here."""

    async def read(self) -> bytes:
        """The body."""
        return self._cycle.request.body

    async def json(self) -> Any:
        """The body, decoded.

        Raises:
            Problem: 422, which becomes the response: the body is not JSON, or is nested too deeply.
        """
        return request_envelope.decode_json(self._cycle.request.body)

    def start(self, status: int, fields: tuple[Header, ...]) -> None:
        """Start a streamed response.

        Raises:
            ConnectionResetError: the request has ended.
        """
        self._check()
        self._cycle.start(status, fields)

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body. Waits while the client's write buffer is full.

        Raises:
            ConnectionResetError: the request has ended.
        """
        self._check()
        self._cycle.write_piece(piece)
        await self.writable.wait()

    def _check(self) -> None:
        if self.ended:
            raise ConnectionResetError("the request has ended: its client disconnected, or it was cut")


class Response:
    """A complete response."""

    def __init__(
        self,
        *,
        body: bytes | str | None = None,
        text: str | None = None,
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        content = text if text is not None else body
        self.body = content.encode() if isinstance(content, str) else content or b""
        self.status = status
        self.headers = dict(headers or {})
        default = "text/plain; charset=utf-8" if text is not None else "application/octet-stream"
        self.content_type = content_type or default


def json_response(data: Any, *, status: int = 200) -> Response:
    """A JSON response."""
    return Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


class StreamResponse:
    """A streamed response: `prepare`, `write` …, `write_eof`."""

    def __init__(self, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.content_type = "application/octet-stream"
        self.prepared = False
        self.finished = False
        self._request: ClientRequest | None = None

    async def prepare(self, request: ClientRequest) -> None:
        """Send status and header fields."""
        self._request = request
        self.prepared = True
        fields = {name.lower(): value for name, value in self.headers.items()}
        fields.setdefault("content-type", self.content_type)
        fields.pop("content-length", None)
        fields.pop("transfer-encoding", None)
        request.start(self.status, header_fields(fields))

    async def write(self, data: bytes) -> None:
        """Send a piece. Waits while the client's write buffer is full."""
        if self._request is None:
            raise RuntimeError("write(data) was called before prepare(request)")
        if data:
            await self._request.send(data)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the last piece."""
        if data:
            await self.write(data)
        self.finished = True


class _Content:
    """`response.content`: the body as a stream."""

    def __init__(self, response: "ModelResponse") -> None:
        self._response = response

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The pieces as they arrive."""
        while True:
            piece = await self._response.next_piece()
            if not piece:
                return
            yield piece

    async def read(self) -> bytes:
        """The complete body."""
        return await self._response.read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        rest = b""
        async for piece in self.iter_any():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest


class ModelResponse:
    """The model's response: a sink of the model's connection that a hook can await."""

    def __init__(self) -> None:
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.headers = Headers([])
        self.content = _Content(self)
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._ended = False
        self._fault: UpstreamError | None = None
        self._received = asyncio.Event()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "application/octet-stream").partition(";")[0].strip()

    async def started(self) -> None:
        """Wait for status and header fields.

        Raises:
            UpstreamError: the model did not answer.
        """
        await self._started

    async def read(self) -> bytes:
        """The complete body."""
        pieces = []
        while piece := await self.next_piece():
            pieces.append(piece)
        body = b"".join(pieces)
        self._pieces, self._buffered_bytes = [body] if body else [], 0
        return body

    async def text(self) -> str:
        """The complete body as text."""
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """The complete body, decoded from JSON."""
        return msgspec.json.decode(await self.read())

    async def next_piece(self) -> bytes:
        """The next piece of the body; empty at the end.

        Raises:
            UpstreamError: the response is incomplete.
        """
        while not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return b""
            self._received.clear()
            await self._received.wait()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._buffered_bytes = 0
        if self.connection is not None:
            self.connection.resume()
        return piece

    # --- ResponseSink

    def sent(self) -> None:
        """Unused."""

    def head(self, head: ResponseHead) -> None:
        """Keep status and header fields."""
        self.status = head.status
        self.headers = Headers(head.headers)
        if not self._started.done():
            self._started.set_result(None)

    def body(self, data: bytes) -> None:
        """Buffer a piece of the body; pause the model when the buffer is full."""
        self._pieces.append(data)
        self._buffered_bytes += len(data)
        self._received.set()
        if self._buffered_bytes > _BUFFER_BYTES and self.connection is not None:
            self.connection.pause()

    def flush(self) -> None:
        """Unused."""

    def end(self) -> None:
        """The response is complete."""
        self._ended = True
        self._received.set()

    def fault(self, fault: UpstreamError) -> None:
        """Raise the error in the hook."""
        self._fault = fault
        self._received.set()
        if not self._started.done():
            self._started.set_exception(fault)


def is_streamed(answer: Any) -> bool:
    """Whether the hook has sent its response with `prepare`."""
    return bool(getattr(answer, "prepared", False))


def as_response(answer: Any) -> Response | None:
    """The hook's return value as a response, or None if it is not one."""
    if isinstance(answer, Response):
        return answer
    body, status = getattr(answer, "body", b""), getattr(answer, "status", None)
    headers = getattr(answer, "headers", None)
    if not isinstance(status, int) or not isinstance(headers, Mapping):
        return None
    if not isinstance(body, bytes | bytearray | memoryview | None):
        return None
    fields = {name: value for name, value in headers.items() if name.lower() not in SERVER_FIELDS}
    kind = next((value for name, value in fields.items() if name.lower() == "content-type"), None)
    return Response(body=bytes(body or b""), status=status, content_type=kind, headers=fields)
