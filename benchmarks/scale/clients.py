"""Clients of many endpoints: they ask for a route, wait in the queue like the official client, and send the request."""

import asyncio
import time
from dataclasses import dataclass

import msgspec

from benchmarks.engine.load import Answer, Connection, request_bytes
from benchmarks.scale.fake_workers import FakeWorkers

_AGAIN_SECONDS = 0.2


@dataclass(slots=True)
class Asked:
    """Requests to all endpoints, and their outcomes."""

    sent: int = 0
    load: float = 0.0
    given: int = 0
    polls: int = 0
    faults: int = 0
    last_fault: str = ""
    rerouted: int = 0


class Clients:
    """One client per request; connections are used again."""

    def __init__(self, port: int, fake_workers: FakeWorkers) -> None:
        self._port = port
        self._fake_workers = fake_workers
        self._free: list[_Connection] = []
        self._decoder = msgspec.json.Decoder(Answer)
        self.asked = Asked()
        self.load_of: dict[str, float] = {}
        self.route_seconds: list[float] = []
        """Latencies of calls that got a worker at once, seconds."""
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, endpoint: str, key: str, cost: float) -> None:
        """A new request."""
        self.asked.sent += 1
        self.asked.load += cost
        self.load_of[endpoint] = self.load_of.get(endpoint, 0.0) + cost
        task = asyncio.get_running_loop().create_task(self._one(endpoint, key, cost))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    @property
    def waiting(self) -> int:
        """Requests that have no worker yet."""
        return len(self._under_way)

    async def _one(self, endpoint: str, key: str, cost: float) -> None:
        index, failed_url = 0, ""
        began = time.perf_counter()
        while True:
            body = {
                "endpoint": endpoint,
                "api_key": key,
                "cost": cost,
                "request_idx": index,
                "replay_timeout": 60.0,
                "failed_url": failed_url,
            }
            try:
                answer = await self._call(request_bytes("/route/", msgspec.json.encode(body), key))
            except (OSError, ValueError, RuntimeError) as fault:
                self.asked.faults += 1
                self.asked.last_fault = f"{type(fault).__name__}: {fault}"
                await asyncio.sleep(1.0)
                continue
            index = answer.request_idx
            worker = self._fake_workers.by_url.get(answer.url)
            if worker is not None and worker.loaded:
                if not self.asked.polls or time.perf_counter() - began < 1.0:
                    self.route_seconds.append(time.perf_counter() - began)
                self.asked.given += 1
                worker.take(index, cost)
                return
            if answer.url:  # the worker was just stopped: refused, as by a closed port
                failed_url = answer.url
                self.asked.rerouted += 1
            else:
                failed_url = ""
                self.asked.polls += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _call(self, request: bytes) -> Answer:
        connection = await self._connection()
        try:
            status, body = await connection.call(request)
        except BaseException:
            connection.close()  # its answer may still arrive, so the connection cannot be used again
            raise
        self._free.append(connection)
        if status != 200:
            raise ValueError(f"status {status}: {body[:200]!r}")
        return self._decoder.decode(body)

    async def _connection(self) -> "_Connection":
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection

    def close(self) -> None:
        """Abandons waiting requests and closes the connections."""
        for task in list(self._under_way):
            task.cancel()
        for connection in self._free:
            connection.close()


class _Connection(Connection):
    """A connection that knows whether the engine has closed it."""

    closed = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Marks the connection as closed."""
        self.closed = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Drops an answer without a waiting request."""
        if self._answer is not None and not self._answer.done():
            super().data_received(data)
