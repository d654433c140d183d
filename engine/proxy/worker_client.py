"""Sends a request to a worker, and says in what way that failed."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from stoker_wire.errors.picklable import PicklableError
from stoker_wire.http1.messages import Header
from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection, UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.security.certificate_faults import certificate_fault

_CONNECT_SECONDS_MAX = 10.0
_IDLE_SECONDS_MAX = 15.0
_SWEEP_SECONDS = 5.0
_CONNECTIONS_MAX = 65_536
"""Per worker. The engine's own connections bound them."""
_BUFFERED_BYTES_MAX = 64 * 1024
_WHOLE_BYTES_MAX = 64 * 1024
"""A larger body is not joined to the head of its request."""
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""An answer that is held in memory as a whole."""


class Failure(StrEnum):
    """Why a request has no answer."""

    UNREACHABLE = "unreachable"
    """No connection: the worker did not get the request."""
    CERTIFICATE = "certificate"
    """The worker's certificate is not trusted, or TLS failed otherwise."""
    BROKE_OFF = "broke_off"
    """The connection ended before the answer was complete."""
    MALFORMED = "malformed"
    """The answer is not HTTP."""
    NOT_FINAL = "not_final"
    """The status is no answer to this call."""
    SILENT = "silent"
    """No byte came for as long as the endpoint allows."""


_FAILURES = {
    "closed": Failure.BROKE_OFF,
    "malformed": Failure.MALFORMED,
    "not_final": Failure.NOT_FINAL,
}


class WorkerFailed(PicklableError, Exception):
    """The worker failed before a byte of its answer was passed on."""

    def __init__(self, failure: str, message: str) -> None:
        self.failure = failure
        """A `Failure`."""
        super().__init__(message)


Switch = Callable[[ResponseHead, UpstreamConnection, bytes], asyncio.Protocol]
"""Takes over a connection whose worker has accepted a WebSocket (`SwitchingSink.switched`)."""


@dataclass(slots=True)
class Call:
    """One request to one worker."""

    method: bytes
    origin: str
    """`http[s]://host:port` of the worker."""
    target: bytes
    """Path and query."""
    headers: list[Header]
    body: tuple[bytes, ...]
    silence_seconds_max: float
    sent: Callable[[], None]
    """Called when the request goes out: the worker may have seen the ticket."""
    switch: Switch | None = None
    """None: the request is no handshake."""
    reused: bool = field(default=False, init=False)
    """The connection had served another request before."""


class WorkerAnswer:
    """A worker's answer as it comes (`ResponseSink`)."""

    __slots__ = (
        "_buffered",
        "_call",
        "_fault",
        "_head",
        "_heard_at",
        "_held",
        "_parts",
        "_pool",
        "_target",
        "_timer",
        "_waiter",
        "connection",
        "ended",
    )

    def __init__(self, pool: UpstreamPool, call: Call) -> None:
        self._pool = pool
        self._call = call
        self._head: ResponseHead | None = None
        self._parts: list[bytes] = []
        self._buffered = 0
        self._fault: WorkerFailed | None = None
        self._target: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._held = False
        """The client takes no more for now."""
        self.connection: UpstreamConnection | None = None
        self.ended = False
        """All of it has come."""

    def __repr__(self) -> str:
        return f"<WorkerAnswer {self.status if self._head else 'awaited'} of {self._call.origin}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the head

    @property
    def _known(self) -> ResponseHead:
        assert self._head is not None, "`WorkerClient.send` returns answers with a head"
        return self._head

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._known.status

    @property
    def headers(self) -> list[Header]:
        """The header fields, names in lower case."""
        return self._known.headers

    @property
    def length(self) -> int | None:
        """The body's length, if it is known."""
        return self._known.length

    @property
    def has_more(self) -> bool:
        """Whether bytes of the body have come that were not read."""
        return bool(self._parts)

    def header(self, name: bytes) -> str | None:
        """The first value of the field; `name` in lower case."""
        value = self._known.header(name)
        return None if value is None else value.decode("utf-8", "surrogateescape")

    # --- the body

    async def begin(self) -> None:
        """Wait for the head.

        Raises:
            WorkerFailed: none comes.
        """
        while self._head is None:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def read(self) -> bytes:
        """The next bytes of the body; empty at its end.

        Raises:
            WorkerFailed: the answer broke off.
        """
        while not self._parts:
            if self._fault is not None:
                raise self._fault
            if self.ended:
                return b""
            await self._wait()
        return self._take()

    async def read_all(self) -> bytes:
        """The rest of the body.

        Raises:
            WorkerFailed: the answer broke off, or it is too large to be held.
        """
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > _ANSWER_BYTES_MAX:
                message = f"an answer of over {_ANSWER_BYTES_MAX} bytes cannot be held"
                raise WorkerFailed(Failure.MALFORMED, message)
            pieces.append(piece)
        return b"".join(pieces)

    async def pass_to(self, write: Callable[[bytes], None]) -> None:
        """Hand every piece over as it comes, until the end.

        Raises:
            WorkerFailed: the answer broke off.
        """
        if self._parts:
            write(self._take())
        self._target = write
        while not self.ended:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    def pause(self) -> None:
        """Read no more from the worker until `resume`."""
        self._held = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._held = False
        if self.connection is not None:
            self.connection.resume()

    def close(self) -> None:
        """Drop what has not come. The worker sees a closed connection."""
        self._stop_timer()
        if not self.ended and self._fault is None:
            self._fault = WorkerFailed(Failure.BROKE_OFF, "the call was cancelled")
            self._pool.cancel(self)

    def _take(self) -> bytes:
        data = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
        self._parts.clear()
        self._buffered = 0
        if self.connection is not None and not self._held:
            self.connection.resume()
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- the connection

    def sent(self) -> None:
        """The request was written: the worker may be silent for a limited time."""
        assert self.connection is not None, "set by the pool"
        self._call.reused = self.connection.reused
        self._call.sent()
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        self._timer = loop.call_later(self._call.silence_seconds_max, self._check_idle)

    def head(self, head: ResponseHead) -> None:
        """Keep the head."""
        self._head = head

    def body(self, data: bytes) -> None:
        """Keep the piece."""
        self._parts.append(data)

    def flush(self) -> None:
        """Deliver what has come in one read."""
        self._heard_at = asyncio.get_running_loop().time()
        if self._target is not None:
            if self._parts:
                self._target(self._take())
            return
        self._buffered = sum(map(len, self._parts))
        if self._buffered > _BUFFERED_BYTES_MAX and self.connection is not None:
            self.connection.pause()
        self._wake()

    def end(self) -> None:
        """The answer is complete."""
        self.ended = True
        self._stop_timer()
        if self._target is not None and self._parts:
            self._target(self._take())
        self._wake()

    def fault(self, fault: UpstreamError) -> None:
        """The answer will not be completed."""
        self._fail(worker_failed(fault))

    def _fail(self, failed: WorkerFailed) -> None:
        if self._fault is None:
            self._fault = failed
            self._stop_timer()
            self._wake()

    def _check_idle(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self.connection is None or self.connection.paused:  # queued again, or the client reads slowly
            self._heard_at = now
        left = self._heard_at + self._call.silence_seconds_max - now
        if left > 0:
            self._timer = loop.call_later(left, self._check_idle)
            return
        self._pool.cancel(self)
        self._fail(WorkerFailed(Failure.SILENT, "it sent nothing"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _HandshakeAnswer(WorkerAnswer):
    __slots__ = ()

    def switched(self, head: ResponseHead, connection: UpstreamConnection, early: bytes) -> asyncio.Protocol:
        """The worker has accepted the WebSocket."""
        assert self._call.switch is not None, "this class answers handshakes"
        self._head = head
        self.ended = True
        self._stop_timer()
        self._wake()
        return self._call.switch(head, connection, early)


class WorkerClient:
    """Connections to workers. Cookies and redirects of workers are ignored: they are machines of third parties."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._pools: dict[str, UpstreamPool] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<WorkerClient of {len(self._pools)} workers>"

    async def __aenter__(self) -> Self:
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for pool in self._pools.values():
            pool.close()

    async def send(self, call: Call, *, fresh: bool = False) -> WorkerAnswer:
        """The worker's answer, once its head has come.

        Raises:
            WorkerFailed: the worker sent no head.
        """
        pool = self._pool(call.origin)
        call.reused = False
        answer = (WorkerAnswer if call.switch is None else _HandshakeAnswer)(pool, call)
        try:
            pool.submit(answer, _parts_of(call, pool.authority), fresh=fresh)
            await answer.begin()
        except BaseException:
            answer.close()
            raise
        return answer

    def _pool(self, origin: str) -> UpstreamPool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = UpstreamPool(
                origin,
                connections_max=_CONNECTIONS_MAX,
                idle_seconds_max=_IDLE_SECONDS_MAX,
                connect_seconds_max=_CONNECT_SECONDS_MAX,
                tls=self._tls if origin.startswith("https:") else None,
            )
        return pool

    def _sweep(self) -> None:
        """Close idle connections, and forget workers without one."""
        for origin, pool in list(self._pools.items()):
            pool.close_expired()
            if pool.is_unused:
                del self._pools[origin]
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)


def _parts_of(call: Call, authority: bytes) -> tuple[bytes, ...]:
    """The request as bytes on the wire."""
    lines = [call.method, b" ", call.target, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"]
    for name, value in call.headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    if sum(map(len, call.body)) <= _WHOLE_BYTES_MAX:
        return (b"".join([*lines, *call.body]),)
    return (b"".join(lines), *call.body)


def worker_failed(fault: UpstreamError) -> WorkerFailed:
    """The failure behind a fault of the pool."""
    cause = fault.__cause__
    if isinstance(cause, ssl.SSLError):
        said = certificate_fault(cause) or getattr(cause, "reason", "") or str(cause)
        return WorkerFailed(Failure.CERTIFICATE, str(said)[:200])
    return WorkerFailed(_FAILURES.get(fault.kind, Failure.UNREACHABLE), str(fault)[:200])
