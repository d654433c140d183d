"""A WebSocket between a client and a worker: after the handshake, bytes pass unchanged in both directions."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from stoker_wire.http.websocket import (
    FAILED,
    GOING_AWAY,
    KEY_PROTOCOLS,
    POLICY,
    PROTOCOL,
    FrameTracker,
    close_frame,
    split_protocols,
)

_FINISH_SECONDS = 10.0
"""For one side to end after the other has sent its last byte."""
_SWITCHING = 101
_PASSED = (
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Accept",
)
_PROTOCOLS = "Sec-WebSocket-Protocol"


def is_handshake(request: web.BaseRequest) -> bool:
    """Whether the request offers a WebSocket. aiohttp then reads no further request from the connection."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


def is_sound_handshake(request: web.BaseRequest) -> bool:
    """Whether every reader takes the request for the same handshake."""
    fields = request.headers
    return (
        request.method == "GET"
        and request.version == aiohttp.HttpVersion11
        and [value.strip().lower() for value in fields.getall("Upgrade", ())] == ["websocket"]
        and "upgrade" in fields.get("Connection", "").lower()
        and len(fields.getall("Sec-WebSocket-Key", ())) == 1
        and "Content-Length" not in fields
        and "Transfer-Encoding" not in fields
    )


async def close_after_handshake(request: web.Request, response: web.StreamResponse) -> None:
    """Close the connection of a refused handshake; for `Application.on_response_prepare`."""
    if is_handshake(request):
        response.force_close()
        if response.status != _SWITCHING:
            response.headers["Connection"] = "close"


def handshake_fields(request: web.BaseRequest) -> "CIMultiDict[str]":
    """The header fields of the handshake for the worker. A key among the subprotocols stays here."""
    fields = CIMultiDict({"Connection": "Upgrade", "Upgrade": "websocket"})
    for name in _PASSED:
        if name == _PROTOCOLS:
            kept, _ = split_protocols(request.headers.getall(name, ()), *KEY_PROTOCOLS)
            if kept:
                fields[name] = ", ".join(kept)
        elif name in request.headers:
            fields[name] = request.headers[name]
    return fields


class _Upgradable(Protocol):
    """aiohttp's connection, on both of its sides."""

    def set_parser(self, parser: Any, *more: Any) -> None:
        """Give what follows the handshake to `parser`."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the connection."""


class _Early:
    """Takes what has come after the handshake until now."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        pass


class _Side(asyncio.Protocol):
    """One of the two connections. It replaces aiohttp's protocol on the transport, and reports the end to it."""

    def __init__(self, tunnel: "Tunnel", before: _Upgradable, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._before = before
        self.transport = transport
        self.frames = FrameTracker()
        """Of what this side has sent."""
        self.peer = self
        self.finished = False
        """It sends no more."""
        self.lost = False

    def take_over(self, *more: Any) -> bytes:
        """Replace aiohttp's protocol. Returns what had come already."""
        early = _Early()
        self._before.set_parser(early, *more)
        self.transport.set_protocol(self)
        return early.data

    def data_received(self, data: bytes) -> None:
        self._tunnel.active = True
        self.frames.feed(data)
        if not self.peer.lost:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if not self.peer.lost:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.peer.lost:
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        self.finished = True
        peer = self.peer
        if peer.finished or peer.lost or peer.transport.is_closing() or not peer.transport.can_write_eof():
            return False
        peer.transport.write_eof()
        self._tunnel.finish_soon()
        return self.transport.can_write_eof()  # TLS has no half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._tunnel.side_lost(self)
        self._before.connection_lost(exc)

    def tell(self, code: int, reason: str, *, masked: bool) -> None:
        """Send a close frame to this side, unless a frame would be cut or the peer has sent its last."""
        peer = self.peer
        if not self.lost and not peer.finished and peer.frames.between_frames and not peer.frames.closed:
            self.transport.write(close_frame(code, reason, masked=masked))


class Tunnel:
    """Runs one WebSocket until a side ends, both are silent for too long, or the engine stops."""

    def __init__(self, silence_seconds_max: float) -> None:
        self._silence_seconds_max = silence_seconds_max
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._client: _Side | None = None
        self._worker: _Side | None = None
        self.active = False
        """Bytes have come since the last check."""

    def __repr__(self) -> str:
        return f"<Tunnel {'ended' if self._ended.done() else 'open'}>"

    async def run(self, request: web.Request, answered: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass the worker's 101 on, then bytes in both directions until the end."""
        response = web.StreamResponse(status=_SWITCHING, headers=_answer_fields(request, answered.headers))
        response.force_close()
        await response.prepare(request)
        transport, upstream = request.transport, answered.connection
        if transport is None or upstream is None or upstream.transport is None or upstream.protocol is None:
            raise ConnectionError("a side has closed the connection")
        client = self._client = _Side(self, request.protocol, transport)
        worker = self._worker = _Side(self, upstream.protocol, upstream.transport)
        client.peer, worker.peer = worker, client
        for side, more in ((client, ()), (worker, (None,))):
            if early := side.take_over(*more):
                side.data_received(early)
        self._check_later(self._silence_seconds_max, self._check_idle)
        try:
            await self._ended
        finally:
            self._close()
        return response

    def close(self) -> None:
        """The engine stops."""
        self._end(GOING_AWAY, "engine_stopping")

    def side_lost(self, side: _Side) -> None:
        """One of the connections is closed."""
        if side is self._worker and self._client is not None and not side.frames.closed:
            self._client.tell(FAILED, "the worker closed the connection without a close frame", masked=False)
        self._set_ended()

    def finish_soon(self) -> None:
        """One side has sent its last byte."""
        self._check_later(_FINISH_SECONDS, self._set_ended)

    def _check_idle(self) -> None:
        if self.active:
            self.active = False
            self._check_later(self._silence_seconds_max, self._check_idle)
        else:
            self._end(POLICY, "silence_seconds_max")

    def _check_later(self, seconds: float, check: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, check)

    def _end(self, code: int, reason: str) -> None:
        if self._client is not None and self._worker is not None:
            self._client.tell(code, reason, masked=False)
            self._worker.tell(code, reason, masked=True)
        self._set_ended()

    def _set_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _close(self) -> None:
        """Close what is open: in an orderly way after a close frame, else so that the worker cancels its work."""
        if self._timer is not None:
            self._timer.cancel()
        client, worker = self._client, self._worker
        if client is None or worker is None:
            return
        orderly = client.frames.closed or worker.frames.closed or not client.lost
        for side in (client, worker):
            if side.lost:
                continue
            if orderly:
                side.transport.close()
            else:
                side.transport.abort()


async def run_tunnel(
    open_ones: set[Tunnel], request: web.Request, answered: aiohttp.ClientResponse, silence_seconds_max: float
) -> web.StreamResponse:
    """Run a WebSocket that is among the open ones while it lasts."""
    tunnel = Tunnel(silence_seconds_max)
    open_ones.add(tunnel)
    try:
        return await tunnel.run(request, answered)
    finally:
        open_ones.discard(tunnel)


def _answer_fields(request: web.Request, answered: Mapping[str, str]) -> "CIMultiDict[str]":
    fields = CIMultiDict({"Connection": "Upgrade", "Upgrade": "websocket"})
    for name in (*_PASSED, "X-Stoker-Worker"):
        if name in answered:
            fields[name] = answered[name]
    _, key = split_protocols(request.headers.getall(_PROTOCOLS, ()), *KEY_PROTOCOLS)
    if key and _PROTOCOLS not in fields:
        fields[_PROTOCOLS] = PROTOCOL
    return fields
