"""What a `response_generator` works with: the client's request, the model's answer, and the answer it makes.

They have the methods of the official package's (aiohttp's) objects that such hooks use.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.messages import Header, header_fields
from stoker_pyworker.http.outgoing import Head, OriginFault, OutgoingConnection
from stoker_pyworker.http.request import Request
from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.aiohttp_answers import OURS, ClientWriter

_BUFFER_BYTES = 256 * 1024


class Headers(Mapping[str, str]):
    """Header fields by name, whatever its case; the first of several."""

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
    """The client's request; its body is the whole envelope."""

    def __init__(self, request: Request, client: ClientConnection) -> None:
        self._request = request
        self._client = client
        self.over = False
        """Its answer is complete or cut: the connection may be at the next one."""
        self.method = request.method.decode("latin-1")
        self.path = request.path.decode("latin-1")
        self.headers = Headers(request.headers)
        self.room = asyncio.Event()
        self.room.set()
        # What an aiohttp response asks of its request, for response generators that come from the official package.
        self.version = (1, 1)
        self.keep_alive = True
        self._payload_writer = ClientWriter(self)

    async def _prepare_hook(self, response: Any) -> None:
        """aiohttp tells its application's signals; there is none here."""

    async def read(self) -> bytes:
        """The body."""
        return self._request.body

    async def json(self) -> Any:
        """The body, decoded.

        Raises:
            Problem: 422, which becomes the answer: the body is not JSON, or its nesting is too deep.
        """
        return request_envelope.decoded(self._request.body)

    def start(self, status: int, fields: tuple[Header, ...]) -> None:
        """Begin a streamed answer.

        Raises:
            ConnectionResetError: the request is over; the hook goes on all the same.
        """
        self._check()
        self._client.start(status, fields)

    async def send(self, piece: bytes) -> None:
        """A piece of it; waits while the client is behind.

        Raises:
            ConnectionResetError: the request is over; the hook goes on all the same.
        """
        self._check()
        self._client.write_piece(piece)
        await self.room.wait()

    def _check(self) -> None:
        if self.over:
            raise ConnectionResetError("the request is over: its client has left, or it was cut")


class Response:
    """A whole answer."""

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
    """An answer in JSON."""
    return Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


class StreamResponse:
    """An answer that goes out as it is made: `prepare`, `write` …, `write_eof`."""

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
        request.start(
            self.status,
            header_fields(fields),
        )

    async def write(self, data: bytes) -> None:
        """Send a piece; waits while the client is behind."""
        if self._request is None:
            raise RuntimeError("prepare(request) comes before write(data)")
        if data:
            await self._request.send(data)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the last piece."""
        if data:
            await self.write(data)
        self.finished = True


class _Content:
    """`response.content`: the body as it comes."""

    def __init__(self, response: "ModelResponse") -> None:
        self._response = response

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The pieces as they come."""
        while True:
            piece = await self._response.next_piece()
            if not piece:
                return
            yield piece

    async def read(self) -> bytes:
        """All of it."""
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
    """The model's answer; a sink of the model's connection that a hook can await."""

    def __init__(self) -> None:
        self.connection: OutgoingConnection | None = None
        self.status = 0
        self.headers = Headers([])
        self.content = _Content(self)
        self._pieces: list[bytes] = []
        self._held = 0
        self._ended = False
        self._fault: OriginFault | None = None
        self._news = asyncio.Event()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "application/octet-stream").partition(";")[0].strip()

    async def started(self) -> None:
        """Wait for status and header fields.

        Raises:
            OriginFault: there will be none.
        """
        await self._started

    async def read(self) -> bytes:
        """The whole body."""
        pieces = []
        while piece := await self.next_piece():
            pieces.append(piece)
        body = b"".join(pieces)
        self._pieces, self._held = [body] if body else [], 0
        return body

    async def text(self) -> str:
        """The whole body as text."""
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """The whole body, decoded."""
        return msgspec.json.decode(await self.read())

    async def next_piece(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            OriginFault: the answer broke off.
        """
        while not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self.connection is not None:
            self.connection.resume()
        return piece

    # --- the sink

    def sent(self) -> None:
        """The request is on its way."""

    def head(self, head: Head) -> None:
        """Status and header fields are there."""
        self.status = head.status
        self.headers = Headers(head.headers)
        if not self._started.done():
            self._started.set_result(None)

    def body(self, data: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(data)
        self._held += len(data)
        self._news.set()
        if self._held > _BUFFER_BYTES and self.connection is not None:
            self.connection.pause()

    def flush(self) -> None:
        """Nothing to do: pieces wait to be asked for."""

    def end(self) -> None:
        """The answer is complete."""
        self._ended = True
        self._news.set()

    def fault(self, fault: OriginFault) -> None:
        """The model server failed."""
        self._fault = fault
        self._news.set()
        if not self._started.done():
            self._started.set_exception(fault)


def is_streamed(answer: Any) -> bool:
    """Whether the hook's answer has gone out through its `prepare`."""
    return bool(getattr(answer, "prepared", False))


def whole(answer: Any) -> Response | None:
    """The answer as ours, or None if it is no response at all."""
    if isinstance(answer, Response):
        return answer
    body, status = getattr(answer, "body", b""), getattr(answer, "status", None)
    headers = getattr(answer, "headers", None)
    if not isinstance(status, int) or not isinstance(headers, Mapping):
        return None
    if not isinstance(body, bytes | bytearray | memoryview | None):
        return None
    fields = {name: value for name, value in headers.items() if name.lower() not in OURS}
    kind = next((value for name, value in fields.items() if name.lower() == "content-type"), None)
    return Response(body=bytes(body or b""), status=status, content_type=kind, headers=fields)
