"""The load generator: prebuilt requests over keep-alive connections; answers are only counted and timed.

A separate process. It reads one JSON line from stdin and answers with one JSON line. `bodies` is a file with one
request body per line: with single-use tickets, each request needs its own line.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request when the last one's answer is complete."""

    def __init__(
        self, requests: Iterator[bytes], deadline: float, done: Callable[["Connection"], None], most: int
    ) -> None:
        self.requests = requests
        self.deadline = deadline
        self.done = done
        self.left = most
        self.data = b""
        self.latencies: list[float] = []
        self.first_events: list[float] = []
        self.first: float | None = None
        self.sent = 0.0
        self.failed = 0
        self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.next()

    def next(self) -> None:
        """Sends the next request, or closes the connection at the end."""
        request = next(self.requests, None) if self.left and time.perf_counter() < self.deadline else None
        if request is None:
            self.transport.close()
            return
        self.left -= 1
        self.data = b""
        self.first = None
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Finds the end of the answer; the body is not parsed."""
        if self.data:
            data = self.data + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self.data = data
            return
        at = data.find(b"ontent-", 0, head)
        while at >= 0 and not data.startswith((b"ength: ", b"ength:"), at + 8):
            at = data.find(b"ontent-", at + 8, head)
        if at >= 0:
            length = int(data[at + 14 : data.find(b"\r", at)])
            complete = len(data) >= head + 4 + length
        else:
            if self.first is None and data.find(b"data:", head) > 0:
                self.first = time.perf_counter() - self.sent
            complete = data.endswith(b"0\r\n\r\n")
        if not complete:
            self.data = data
            return
        self.latencies.append(time.perf_counter() - self.sent)
        if self.first is not None:
            self.first_events.append(self.first)
        self.count += 1
        if data[9:12] != b"200":
            self.failed += 1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, after the last answer or before it."""
        self.done(self)


async def run(job: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    head = (
        f"POST {job['path']} HTTP/1.1\r\nhost: 127.0.0.1:{job['port']}\r\naccept: */*\r\n"
        f"{job.get('headers', '')}"
        "accept-encoding: gzip, deflate\r\nuser-agent: load\r\ncontent-type: application/json\r\ncontent-length: "
    ).encode()
    bodies = Path(job["bodies"]).read_bytes().splitlines()  # noqa: ASYNC240 - before the clock starts
    requests = [head + b"%d\r\n\r\n" % len(body) + body for body in bodies]
    source = itertools.cycle(requests) if job["repeat"] else iter(requests)
    ended: list[Connection] = []
    finished: asyncio.Future[None] = loop.create_future()

    def done(connection: Connection) -> None:
        ended.append(connection)
        if len(ended) == job["connections"]:
            finished.set_result(None)

    started = time.perf_counter()
    deadline = started + job["seconds"]
    most = job.get("requests") or 10**9
    for _ in range(job["connections"]):
        await loop.create_connection(
            lambda: Connection(source, deadline, done, most), "127.0.0.1", job["port"]
        )
    await asyncio.wait_for(finished, job["seconds"] + 30)
    seconds = time.perf_counter() - started
    latencies = sorted(value for each in ended for value in each.latencies)
    firsts = sorted(value for each in ended for value in each.first_events)
    return {
        "count": sum(each.count for each in ended),
        "failed": sum(each.failed for each in ended),
        "seconds": seconds,
        "p50": latencies[len(latencies) // 2] if latencies else None,
        "p99": latencies[int(len(latencies) * 0.99)] if latencies else None,
        "first_p50": firsts[len(firsts) // 2] if firsts else None,
        "exhausted": not job["repeat"] and next(source, None) is None,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(uvloop.run(run(json.loads(line)))), flush=True)
