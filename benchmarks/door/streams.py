"""Many streams at once: every event of every stream has to arrive."""

import asyncio
import time
from dataclasses import dataclass
from typing import cast

from benchmarks.engine.machine import cpu_seconds, rss_mib
from benchmarks.pyworker.model import LONG_EVENTS

_MARK = b"steam"
_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class Streams:
    """The result of a run."""

    count: int
    complete: int
    """Streams that delivered every event and the end."""
    events: int
    seconds: float
    mib_before: float
    mib_open: float
    cpu_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.complete} of {self.count} streams complete after {self.seconds:.0f} s, {self.events:,} events; "
            f"{self.mib_before:.0f} -> {self.mib_open:.0f} MiB, {self.cpu_seconds:.1f} s of CPU"
        )


class _Stream(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self.events = 0
        self.complete = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count events."""
        data = self._tail + data
        self.events += data.count(_MARK)
        self._tail = data[-(len(_MARK) - 1) :]
        if data.endswith(b"0\r\n\r\n"):
            self.complete = self.events == LONG_EVENTS
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        if not self.ended.done():
            self.ended.set_result(None)


async def open_streams(port: int, pid: int, path: str, headers: str, body: bytes, count: int) -> Streams:
    """Open the streams, wait for their ends, and count."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    loop = asyncio.get_running_loop()
    before, used, began = rss_mib(pid), cpu_seconds(pid), time.perf_counter()
    streams = [
        (await loop.create_connection(lambda: _Stream(request), "127.0.0.1", port))[1] for _ in range(count)
    ]
    ends = [stream.ended for stream in streams]
    _, waiting = await asyncio.wait(ends, timeout=LONG_EVENTS / 2)
    most = rss_mib(pid)
    if waiting:
        await asyncio.wait(waiting, timeout=_SECONDS_MAX)
    return Streams(
        count=count,
        complete=sum(stream.complete for stream in streams),
        events=sum(stream.events for stream in streams),
        seconds=time.perf_counter() - began,
        mib_before=before,
        mib_open=most,
        cpu_seconds=cpu_seconds(pid) - used,
    )
