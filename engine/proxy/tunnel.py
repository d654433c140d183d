"""A WebSocket between a client and a worker: after the handshake, bytes pass unchanged in both directions."""

import asyncio
from collections.abc import Callable

from engine.api.keys import text
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
from stoker_wire.http1.messages import Header, status_line
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection

_FINISH_SECONDS = 10.0
"""For one side to end after the other has sent its last byte."""
_PROTOCOLS = b"sec-websocket-protocol"
_ASKED = (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions")
_ANSWERED = (b"sec-websocket-accept", b"sec-websocket-extensions", _PROTOCOLS, b"x-stoker-worker")
_UPGRADE: tuple[Header, ...] = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))


def handshake_fields(request: Request) -> list[Header]:
    """The header fields of the handshake for the worker. A key among the subprotocols stays here."""
    fields = [*_UPGRADE, *((name, value) for name, value in request.headers if name in _ASKED)]
    kept, _ = _protocols(request)
    if kept:
        fields.append((_PROTOCOLS, ", ".join(kept).encode("utf-8", "surrogateescape")))
    return fields


def _protocols(request: Request) -> tuple[list[str], str]:
    offered = [text(value) for name, value in request.headers if name == _PROTOCOLS]
    kept, key = split_protocols(offered, *KEY_PROTOCOLS)
    return list(kept), key


class Tunnel:
    """Runs one WebSocket until a side ends, both are silent for too long, or the engine stops.

    It listens to the client (`TunnelListener`, `ResponseListener`); `_WorkerSide` listens to the worker.
    """

    def __init__(
        self,
        open_ones: "set[Tunnel]",
        cycle: ResponseCycle,
        silence_seconds_max: float,
        cors: tuple[Header, ...],
    ) -> None:
        """`open_ones` holds it while it is open."""
        self._open_ones = open_ones
        self._cycle = cycle
        self._silence_seconds_max = silence_seconds_max
        self._cors = cors
        self._from_client = FrameTracker()
        self._from_worker = FrameTracker()
        self._client_finished = False
        self._worker: UpstreamConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._active = False
        """Bytes have come since the last check."""
        self._over = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Tunnel {'ended' if self._over else 'open'}>"

    def switch(self, head: ResponseHead, connection: UpstreamConnection, early: bytes) -> asyncio.Protocol:
        """The worker has accepted: pass its answer on, then bytes in both directions."""
        self._worker = connection
        fields = [*_UPGRADE, *((name, value) for name, value in head.headers if name in _ANSWERED)]
        if _protocols(self._cycle.request)[1] and head.header(_PROTOCOLS) is None:
            fields.append((_PROTOCOLS, PROTOCOL.encode()))
        lines = [status_line(head.status)]
        for name, value in (*fields, *self._cors):
            lines += (name, b": ", value, b"\r\n")
        self._cycle.write(b"".join([*lines, b"\r\n"]))
        self._open_ones.add(self)
        self._cycle.listener = self
        self._check_later(self._silence_seconds_max, self._check_idle)
        self._cycle.switch_protocols(self)
        if early:
            self.worker_data(early)
        return _WorkerSide(self, connection)

    def close(self) -> None:
        """The engine stops."""
        self._stop(GOING_AWAY, "engine_stopping")

    # --- the client

    def client_data(self, data: bytes) -> None:
        """Pass bytes to the worker."""
        if self._worker is not None and not self._over:
            self._active = True
            self._from_client.feed(data)
            self._worker.transport.write(data)

    def client_finished(self) -> None:
        """The client sends no more: the worker may still answer, within a time limit."""
        self._client_finished = True
        if self._worker is not None and not self._over and self._worker.transport.can_write_eof():
            self._worker.transport.write_eof()
            self._check_later(_FINISH_SECONDS, self._end)

    def client_disconnected(self) -> None:
        """End the worker's side too: in an orderly way after a close frame, else so that it cancels its work."""
        self._end(abort=not (self._from_client.closed or self._from_worker.closed))

    def pause_writing(self) -> None:
        """The client is slower than the worker."""
        if self._worker is not None:
            self._worker.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._worker is not None:
            self._worker.resume()

    # --- the worker

    def worker_data(self, data: bytes) -> None:
        """Pass bytes to the client."""
        if not self._over:
            self._active = True
            self._from_worker.feed(data)
            self._cycle.write(data)

    def worker_paused(self, *, paused: bool) -> None:
        """The worker is slower than the client, or has caught up."""
        self._cycle.set_reading(not paused)

    def worker_lost(self) -> None:
        """The worker has closed the connection."""
        if not self._over:
            if not self._from_worker.closed and not self._from_client.closed:
                self._tell_client(FAILED, "the worker closed the connection without a close frame")
            self._end()

    # --- the end

    def _check_idle(self) -> None:
        if self._active:
            self._active = False
            self._check_later(self._silence_seconds_max, self._check_idle)
        else:
            self._stop(POLICY, "silence_seconds_max")

    def _stop(self, code: int, reason: str) -> None:
        if self._over or self._worker is None:
            return
        self._tell_client(code, reason)
        client = self._from_client
        if client.between_frames and not client.closed and not self._client_finished:
            self._worker.transport.write(close_frame(code, reason, masked=True))
        self._end()

    def _tell_client(self, code: int, reason: str) -> None:
        """Send a close frame, unless a frame would be cut."""
        if self._from_worker.between_frames and not self._from_worker.closed:
            self._cycle.write(close_frame(code, reason))

    def _check_later(self, seconds: float, check: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, check)

    def _end(self, *, abort: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self._open_ones.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            if abort:
                self._worker.transport.abort()
            else:
                self._worker.transport.close()
        self._cycle.complete()
        if not self.ended.done():
            self.ended.set_result(None)


class _WorkerSide(asyncio.Protocol):
    """The worker's connection after the handshake."""

    __slots__ = ("_connection", "_tunnel")

    def __init__(self, tunnel: Tunnel, connection: UpstreamConnection) -> None:
        self._tunnel = tunnel
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._tunnel.worker_data(data)

    def pause_writing(self) -> None:
        self._tunnel.worker_paused(paused=True)

    def resume_writing(self) -> None:
        self._tunnel.worker_paused(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost()
        self._tunnel.worker_lost()
