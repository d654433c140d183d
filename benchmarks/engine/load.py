"""A light load generator: plain HTTP/1.1 over asyncio protocols, so that the generator adds little to the measured
times."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import cast

import msgspec


class Answer(msgspec.Struct):
    """The fields of a route answer that the generator reads."""

    request_idx: int
    url: str = ""


@dataclass
class Result:
    """One run."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    routed: int = 0
    waiting: int = 0
    errors: int = 0

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def quantile_ms(self, q: float) -> float:
        """A latency quantile."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else float("nan")


def request_bytes(path: str, body: bytes, key: str = "") -> bytes:
    """One call as the official client sends it: the key in header, query and body."""
    query = f"?api_key={key}" if key else ""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{auth}Accept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        f"User-Agent: vastai-sdk/1.9.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection; one call at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the call in progress."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the engine closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or self._answer is None:
            return
        at = self._buffer.find(b"ength: ") + 7  # Content-Length, in any case
        length = int(self._buffer[at : self._buffer.index(b"\r\n", at)])
        if len(self._buffer) < head_end + 4 + length:
            return
        body = self._buffer[head_end + 4 :]
        status = int(self._buffer[9:12])
        self._buffer = b""
        self._answer.set_result((status, body))

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Sends one request; returns (status, body)."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


class Generator:
    """Sends route calls, and records which worker got each request, so that the feeder can report its end."""

    def __init__(self, port: int, connections: int, requests: list[bytes]) -> None:
        self._port = port
        self._count = connections
        self._requests = requests
        self._connections: list[Connection] = []
        self._decoder = msgspec.json.Decoder(Answer)
        self.given: dict[str, list[int]] = defaultdict(list)
        """Request indices by worker url whose end has not been reported yet."""

    async def open(self) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
            self._connections.append(connection)

    def close(self) -> None:
        """Closes the connection."""
        for connection in self._connections:
            connection.close()

    async def flat_out(self, seconds: float) -> Result:
        """Closed loop: every connection calls again as soon as it has its answer."""
        result = Result()
        began = time.perf_counter()
        end = began + seconds

        async def one(number: int, connection: Connection) -> None:
            turn = number
            while time.perf_counter() < end:
                turn += 1
                await self._once(connection, self._requests[turn % len(self._requests)], result)

        await asyncio.gather(*(one(n, c) for n, c in enumerate(self._connections)))
        result.seconds = time.perf_counter() - began
        return result

    async def at_rate(self, per_second: float, seconds: float) -> Result:
        """Open loop: evenly spaced arrivals over all connections, independent of the answers.

        The latency of a delayed call counts from the time at which it was due (no coordinated omission). The
        generator's own timer delay is subtracted.
        """
        result = Result()
        interval = self._count / per_second
        began = time.perf_counter() + 0.01

        async def one(number: int, connection: Connection) -> None:
            due, turn = began + interval * number / self._count, number
            while due < began + seconds:
                wait = due - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                request = self._requests[turn % len(self._requests)]
                await self._once(connection, request, result, due if wait <= 0 else None)
                due += interval
                turn += 1

        await asyncio.gather(*(one(n, c) for n, c in enumerate(self._connections)))
        result.seconds = time.perf_counter() - began
        return result

    async def _once(
        self, connection: Connection, request: bytes, result: Result, due: float | None = None
    ) -> None:
        began = time.perf_counter() if due is None else due
        status, body = await connection.call(request)
        result.latencies.append(time.perf_counter() - began)
        if status != 200:
            result.errors += 1
            return
        answer = self._decoder.decode(body)
        if answer.url:
            result.routed += 1
            self.given[answer.url].append(answer.request_idx)
        else:
            result.waiting += 1
