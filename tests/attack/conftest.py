"""Fixtures: the three public servers (engine, marketplace, worker) and raw sockets to them."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from engine.app import start_server
from engine.settings import EngineSettings, Limits
from hosts import HostMarketSettings, create_app
from hosts.api.http import HOST
from run.state_folder.lock import free_port
from stoker_wire.http1.limits import Limits as WorkerLimits
from stoker_wire.http1.server import HttpServer
from tests.engine.fake_endpoint_workflow import until
from webserver.connections import ConnectionLimits, listen

KEY = "account-key-0123456789"
SIGNING_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
SERVERS = ("engine", "market", "worker")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The limits that a test sets on a server."""

    connections_max: int = 1000
    head_seconds_max: float = 10.0
    idle_seconds_max: float = 75.0
    body_bytes_max: int = 100_000
    body_seconds_max: float = 30.0


class Target:
    """A server under attack. `open_path` needs no key; `body_path` takes a body."""

    def __init__(
        self,
        port: int,
        open_path: str,
        body_path: str,
        *,
        connections: Callable[[], int],
        idle: Callable[[], int],
    ) -> None:
        self.port = port
        self.open_path = open_path
        self.body_path = body_path
        self.connections = connections
        self.idle = idle

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes, *, seconds: float = 20) -> bytes:
        """Send bytes and return everything that the server sends until it closes."""
        reader, writer = await self.connect()
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            async with asyncio.timeout(seconds):
                return await read_all(reader)
        finally:
            writer.close()

    async def serves(self) -> bool:
        """Whether a regular client is served."""
        return (await self.say(self.request(close=True))).startswith(b"HTTP/1.1 200")

    def request(self, *, close: bool = False) -> bytes:
        closing = "Connection: close\r\n" if close else ""
        return f"GET {self.open_path} HTTP/1.1\r\nHost: w\r\n{closing}\r\n".encode()

    def head(self, *fields: str) -> bytes:
        """The head of a POST with the key."""
        lines = [f"POST {self.body_path} HTTP/1.1", "Host: w", f"Authorization: Bearer {KEY}", *fields]
        return "\r\n".join([*lines, ""]).encode()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the peer closes or resets the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            data += piece
    return data


def answers_in(data: bytes) -> int:
    """The number of responses in these bytes."""
    return len(re.findall(rb"HTTP/1\.[01] \d{3} ", data))


def problem_in(answer: bytes) -> tuple[int, str]:
    """Status and code of the only response in these bytes, which must be a complete problem."""
    assert answers_in(answer) == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    said = json.loads(body)
    assert b"application/json" in head
    if isinstance(said["error"], dict):  # under /openai/
        return int(head[9:12]), said["error"]["code"]
    assert said["success"] is False
    assert said["msg"] == said["error_msg"]
    return int(head[9:12]), said["error"]


@contextlib.asynccontextmanager
async def engine(bounds: Bounds, **more: Any) -> AsyncIterator[Target]:
    """An engine without Temporal: it serves health and refuses other calls."""
    nowhere = await Client.connect(
        f"127.0.0.1:{free_port()}", lazy=True, data_converter=pydantic_data_converter
    )
    connections = ConnectionLimits(
        connections_max=bounds.connections_max,
        head_seconds_max=bounds.head_seconds_max,
        idle_seconds_max=bounds.idle_seconds_max,
    )
    settings = EngineSettings(
        accounts={"alice": KEY},
        secret=b"a secret of the tests, 32 bytes!",
        rsa_private_key_pem=SIGNING_KEY,
        port=0,
        limits=Limits(
            connections=connections,
            body_bytes_max=bounds.body_bytes_max,
            body_seconds_max=bounds.body_seconds_max,
        ),
        **more,
    )
    server = await start_server(settings, nowhere)
    try:
        yield Target(
            server.port,
            "/healthz",
            "/api/v0/bundles/",
            connections=lambda: server.http.connections,
            idle=lambda: server.http.idle,
        )
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def market(bounds: Bounds, folder: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Target]:
    """The host marketplace, without machines."""
    monkeypatch.setattr("hosts.api.http.BODY_SECONDS_MAX", bounds.body_seconds_max)
    app = create_app(HostMarketSettings(state_dir=folder, api_keys=(KEY,)), gpus=list)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    limits = ConnectionLimits(
        connections_max=bounds.connections_max,
        head_seconds_max=bounds.head_seconds_max,
        idle_seconds_max=bounds.idle_seconds_max,
    )
    server, limiter = await listen(runner, "127.0.0.1", 0, limits=limits)
    assert app[HOST] is not None
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target(
            port,
            "/healthz",
            "/api/v0/bundles/",
            connections=lambda: limiter.connections,
            idle=lambda: len(limiter.idle),
        )
    finally:
        server.close()
        await runner.cleanup()
        limiter.close()


@contextlib.asynccontextmanager
async def worker(bounds: Bounds) -> AsyncIterator[Target]:
    """The worker's HTTP server, with an application that answers every request."""
    limits = WorkerLimits(
        connections_max=bounds.connections_max,
        head_seconds_max=bounds.head_seconds_max,
        idle_seconds_max=bounds.idle_seconds_max,
        body_bytes_max=bounds.body_bytes_max,
        body_seconds_max=bounds.body_seconds_max,
    )
    server = HttpServer(lambda _, cycle: cycle.respond(200, b"{}"), limits)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield Target(
            port, "/healthz", "/echo", connections=lambda: server.connections, idle=lambda: server.idle
        )
    finally:
        await server.close(0.0)


@pytest.fixture
async def target(
    request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """Starts a server by name, with the given limits."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, **bounds: Any) -> Target:
            wanted = Bounds(**bounds)
            made = {
                "engine": lambda: engine(wanted),
                "market": lambda: market(wanted, tmp_path / "market", monkeypatch),
                "worker": lambda: worker(wanted),
            }[name]()
            return await stack.enter_async_context(made)

        yield start


__all__ = ["SERVERS", "Bounds", "Target", "answers_in", "problem_in", "read_all", "until"]
