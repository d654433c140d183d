"""A model server, an engine and a worker, each on real sockets, scripted by the tests."""

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

import httpx

from stoker_pyworker import BenchmarkConfig, HandlerConfig
from stoker_wire.security.ticket import Ticket, sign_ticket
from stoker_wire.security.token import mint_worker_token, ticket_key

LAUNCH = "0123456789ab"
TOKEN = mint_worker_token(b"secret", 7, LAUNCH)
BOUND_SECONDS = 10


async def until(condition, seconds=BOUND_SECONDS):
    """Wait for the condition, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.005)


@dataclass
class Seen:
    """A request that the model server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Model:
    """A model server whose behaviour depends on the path. Streams continue when `go` is set."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    cut: int = 0
    """Connections that ended while a request was being answered."""
    healthy: bool = True
    broken: bool = False
    """Whether it answers every request with 500."""
    answering: int = 0

    def __post_init__(self):
        self.go = asyncio.Event()
        self.writers = set()
        self.tasks = set()

    async def start(self, port=0):
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", port, limit=2**20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()

    async def _connection(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.writers.add(writer)
        self.connections += 1
        number = self.connections
        early = b""
        try:
            while True:
                head = (early + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.seen.append(Seen(method, path, headers, body, number))
                self.answering += 1
                working = asyncio.ensure_future(self._answer(path.partition("?")[0], body, writer))
                gone = asyncio.ensure_future(reader.read(1))
                done, _ = await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
                self.answering -= 1
                if working not in done or working.exception() is not None:
                    self.cut += 1
                    working.cancel()
                    await asyncio.gather(working, gone, return_exceptions=True)
                    return
                # Keep the first byte of the next request.
                gone.cancel()
                early = b""
                with contextlib.suppress(asyncio.CancelledError):
                    early = await gone
                if working.result() is False:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            self.tasks.discard(asyncio.current_task())
            writer.close()

    async def _answer(self, path, body, writer):  # noqa: C901 - a list of independent short scripts
        def head(status="200 OK", **headers):
            lines = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode())

        def chunk(data):
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

        def whole(data, status="200 OK", **headers):
            head(status, content_length=len(data), **headers)
            writer.write(data)

        if self.broken and path != "/health":
            path = "/broken"
        match path:
            case "/health":
                whole(b"{}", "200 OK" if self.healthy else "500 Internal Server Error")
            case "/echo":
                whole(body, content_type="application/json", x_model="yes", keep_alive="timeout=5")
            case "/held":
                await self.go.wait()
                whole(body, content_type="application/json")
            case "/sse":
                head(content_type="text/event-stream; charset=utf-8", transfer_encoding="chunked")
                chunk(b'data: {"n":1}\n\n')
                await self.go.wait()
                chunk(b'data: {"n":2}\n\n')
                chunk(b"data: [DONE]\n\n")
                writer.write(b"0\r\nx-trailer: dropped\r\n\r\n")
            case "/ndjson":
                head(content_type="application/x-ndjson", transfer_encoding="chunked")
                for number in range(3):
                    chunk(b'{"n":%d}\n' % number)
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
            case "/endless":
                head(content_type="application/octet-stream", transfer_encoding="chunked")
                while True:
                    chunk(b"x" * 65536)
                    await writer.drain()
            case "/binary":
                whole(bytes(range(256)) * 1024, content_type="image/png", etag='"1"')
            case "/gzip":
                whole(
                    gzip.compress(b'{"squeezed":true}'),
                    content_type="application/json",
                    content_encoding="gzip",
                )
            case "/until-close":
                head(content_type="text/plain")
                writer.write(b"no length ")
                await self.go.wait()
                writer.write(b"but an end")
                return False
            case "/interim":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                whole(b"{}", content_type="application/json")
            case "/empty":
                head("204 No Content")
            case "/teapot":
                whole(b'{"detail":"short and stout"}', "418 I'm a Teapot", content_type="application/json")
            case "/broken":
                whole(b"oh", "500 Internal Server Error")
            case "/dies":
                writer.transport.abort()
                return False
            case "/dies-midway":
                head(content_type="text/event-stream", transfer_encoding="chunked")
                chunk(b"data: 1\n\n")
                await writer.drain()
                await self.go.wait()
                writer.transport.abort()
                return False
            case "/nonsense":
                writer.write(b"this is not HTTP\r\n\r\n")
            case "/closed":
                whole(b"{}")
            case _:
                whole(b"unknown", "404 Not Found")
        await writer.drain()
        return True


@dataclass
class Engine:
    """An engine that records reports, or fails as configured."""

    port: int = 0
    statuses: list[dict] = field(default_factory=list)
    finished: list[dict] = field(default_factory=list)
    attempts: int = 0
    connections: int = 0
    failing: str = ""
    """`status`: answers 500; `moved`: redirects; `cut`: closes after reading; `finished`: only /delete_requests/ fails."""
    date: str | float | None = None
    """The `Date` of responses: none, the text, or the time of a clock that is the number of seconds ahead."""

    status_for: Callable[[list[dict]], int] = lambda _: 200
    """The response status for a list of ended requests."""

    async def start(self):
        self.writers = set()
        self.ends_of = []
        self.tasks = set()
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def _connection(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.writers.add(writer)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.attempts += 1
                fails = self.failing in ("status", "moved", "cut") or (
                    self.failing == "finished" and "delete" in head
                )
                if self.failing == "cut":
                    return
                status = "200 OK" if not fails else "301 Moved" if self.failing == "moved" else "500 No"
                if not fails and "/worker_status/" in head:
                    self.statuses.append(body)
                elif not fails and (refused := self.status_for(body["requests"])) != 200:
                    status = f"{refused} No"
                elif not fails:
                    self.finished.extend(body["requests"])
                    self.ends_of.append(body["incarnation"])
                writer.write(
                    f"HTTP/1.1 {status}\r\n{self._date_field()}content-length: 2\r\n\r\n{{}}".encode()
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            self.tasks.discard(asyncio.current_task())
            writer.close()

    def _date_field(self):
        if self.date is None:
            return ""
        date = self.date if isinstance(self.date, str) else formatdate(time.time() + self.date, usegmt=True)
        return f"date: {date}\r\n"

    def total(self, name):
        return sum(status[name] for status in self.statuses)


class Harness:
    """A worker in this process, on real sockets, and a client for it."""

    def __init__(self, runtime, engine):
        self.runtime = runtime
        self.engine = engine
        self.request_idx = 0
        self.task = None
        self.client = None

    async def start(self):
        self.task = asyncio.create_task(self.runtime.serve("127.0.0.1"))
        await self.runtime.listening.wait()
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.runtime.port}", timeout=BOUND_SECONDS, trust_env=False
        )
        return self

    async def ready(self):
        await until(lambda: self.runtime.health.refusal is None)
        return self

    async def stop(self):
        await self.client.aclose()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def auth(self, cost=100.0, *, worker=LAUNCH, token=TOKEN, expires_in=60.0, number=1):
        self.request_idx += 1
        ticket = Ticket(e="llm", w=worker, c=cost, r=self.request_idx, n=number, x=time.time() + expires_in)
        return {
            "url": f"http://127.0.0.1:{self.runtime.port}", "signature": "official", "cost": cost, "endpoint": "llm",
            "reqnum": self.request_idx, "request_idx": self.request_idx, "ticket": sign_ticket(ticket, ticket_key(token)),
        }  # fmt: skip

    def envelope(self, payload=None, *, auth=None, session_id=None, **options):
        return {
            "auth_data": auth or self.auth(**options),
            "session_id": session_id,
            "payload": {} if payload is None else payload,
        }

    async def post(self, path, payload=None, **options):
        return await self.client.post(path, json=self.envelope(payload, **options))

    def raw_request(self, path, payload=None, **options):
        body = json.dumps(self.envelope(payload, **options)).encode()
        return (
            f"POST {path} HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.runtime.port)

    async def exchange(self, data):
        """Send the bytes. Returns everything that the worker sends until it closes."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            async with asyncio.timeout(BOUND_SECONDS):
                return await reader.read()
        finally:
            writer.close()


ROUTES = (
    "/echo", "/held", "/sse", "/ndjson", "/endless", "/binary", "/gzip", "/until-close", "/interim", "/empty",
    "/teapot", "/broken", "/dies", "/dies-midway", "/nonsense", "/unserved", "/closed",
)  # fmt: skip


def handlers(**options):
    """A handler for every path of the model server. The first one has the benchmark."""
    parallel = options.pop("allow_parallel_requests", True)
    return [
        HandlerConfig(
            route=route,
            allow_parallel_requests=parallel,
            benchmark_config=BenchmarkConfig(dataset=[{"prompt": "x"}], runs=1, concurrency=1)
            if route == "/echo"
            else None,
            **options,
        )
        for route in ROUTES
    ]


SMALL = """
import os
from stoker_pyworker import BenchmarkConfig, HandlerConfig, Worker, WorkerConfig
def route(path, benchmark=None):
    return HandlerConfig(route=path, allow_parallel_requests=True, benchmark_config=benchmark)
Worker(WorkerConfig(
    model_server_url="http://127.0.0.1", model_server_port=int(os.environ["MODEL_PORT"]),
    handlers=[route("/echo", BenchmarkConfig(dataset=[{}], runs=1)), route("/held"), route("/sse")],
)).run(host="127.0.0.1")
"""


class Remote(Harness):
    """Tickets and requests for a worker in another process."""

    def __init__(self, port, client):
        self.runtime = type("WorkerRuntime", (), {"port": port})
        self.request_idx = 0
        self.client = client


class Process:
    """A worker's process and its log."""

    def __init__(self, process):
        self.process = process
        self.events = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self.process.stdout:
            self.events.append(json.loads(line))

    def event(self, name):
        return next((event for event in self.events if event["event"] == name), None)
