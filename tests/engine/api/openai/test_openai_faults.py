"""The OpenAI door when a worker breaks off, or speaks no proper HTTP, and when its client breaks off."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from engine.routing.worker import KnownWorker
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import EndpointDouble, Stage, WorkerDouble
from tests.engine.fake_endpoint_workflow import until

NO_ANSWERS = {
    "hangs up": b"",
    "breaks off in its head": b"HTTP/1.1 200 OK\r\nContent-Type: appl",
    "breaks off after its head": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
    "is no web server": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "sends a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "sends two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
    "sends a body where none may be": b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
}
NOT_FINAL = {
    "switches protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "counts below a hundred": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
}


@asynccontextmanager
async def answering(raw: bytes, worker: WorkerDouble) -> AsyncIterator[list[bytes]]:
    """The worker reads a request, answers these bytes and hangs up; yields the heads that it has read."""
    heads: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield heads
    finally:
        server.close()
        await close_all(writers)


async def close_all(writers: list[asyncio.StreamWriter]) -> None:
    """Closes connections before the event loop ends."""
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def sound_one_beside(endpoint: EndpointDouble, broken: WorkerDouble) -> AsyncIterator[ModelWorker]:
    """Another worker, sound and busier, so that the broken one is tried first."""
    sound = ModelWorker(endpoint.worker("bbbbbbbbbbbb", 102))
    await sound.start()
    await endpoint.ready(broken, sound.worker)
    await sound.worker.report(cur_load=500.0)
    try:
        yield sound
    finally:
        await sound.server.close()


def known(stage: Stage, endpoint: EndpointDouble, worker: WorkerDouble) -> KnownWorker:
    return stage.server.engine.directory.named(endpoint.name).workers[worker.launch_id]


@pytest.mark.parametrize("raw", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_a_worker_is_replaced_whatever_it_does_instead_of_a_first_byte(
    stage: Stage, raw: bytes
) -> None:
    endpoint = await stage.endpoint()
    broken = endpoint.worker()
    async with answering(raw, broken) as heads, sound_one_beside(endpoint, broken) as sound:
        status, answer = await stage.call("POST", path(endpoint, "completions"), {"n": 1}, key=endpoint.key)
        assert (status, answer.get("got")) == (200, {"n": 1}), answer
        assert len(heads) == 1
        assert known(stage, endpoint, broken).suspicion.since is not None
        assert known(stage, endpoint, sound.worker).suspicion.since is None


@pytest.mark.parametrize("raw", NOT_FINAL.values(), ids=NOT_FINAL)
async def test_a_status_that_is_no_answer_is_not_passed_on(stage: Stage, raw: bytes) -> None:
    endpoint = await stage.endpoint()
    odd = endpoint.worker()
    async with answering(raw, odd):
        await endpoint.ready(odd)
        status, problem = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
        assert (status, problem["error"]["code"]) == (502, "worker_answers_nothing")


async def test_an_answer_without_a_body_has_none(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    async with answering(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", worker):
        await endpoint.ready(worker)
        headers = {"Authorization": f"Bearer {endpoint.key}"}
        url = stage.server.url + path(endpoint, "completions")
        async with stage.http.post(url, json={}, headers=headers) as response:
            assert (response.status, await response.read()) == (204, b"")
            assert "Content-Length" not in response.headers


class RawClient:
    """A client with a socket of its own, which it can reset."""

    def __init__(self, stage: Stage, endpoint: EndpointDouble, *, send: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", stage.server.port))
        self.socket.setblocking(False)
        body = json.dumps({"prompt": "x"})
        head = (
            f"POST {path(endpoint, 'completions')} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {endpoint.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = (head + body).encode()
        if send:
            self.send()

    def send(self) -> None:
        self.socket.send(self._request)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, 65536)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "at the end of the answer"])
async def test_a_client_that_resets_as_its_worker_answers_is_no_fault_of_the_worker(
    stage: Stage, begun: bool
) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    client = None
    connections = stage.server.http.connections

    async def answer_as_the_client_resets(request: web.Request) -> web.StreamResponse:
        assert client is not None
        response = web.StreamResponse()
        await response.prepare(request)
        if begun:
            await response.write(b"first")
            while b"first" not in await client.receive():
                pass
        else:
            await response.write(b"first")
        await response.write_eof()
        client.reset()
        time.sleep(0.05)  # noqa: ASYNC251 - the engine finds the reset and the worker's word in one turn of the loop
        return response

    model.answer = answer_as_the_client_resets
    for calls in range(1, 4):
        client = RawClient(stage, endpoint)
        await until(lambda calls=calls: len(model.seen) == calls, "the worker is called")
        await until(lambda: stage.server.http.connections == connections, "the client's connection is gone")
        worker = known(stage, endpoint, model.worker)
        assert (worker.suspicion.since, worker.suspicion.failures_in_row) == (None, 0)
    await model.server.close()


class ClosingWorker(asyncio.Protocol):
    """Answers one request per connection, and closes with the next one in its kernel's buffer."""

    def __init__(self, made: "list[ClosingWorker]") -> None:
        self._made = made
        self._received = b""
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}}"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            self.transport.pause_reading()


async def test_a_request_that_a_closing_worker_did_not_read_is_sent_again_to_it(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    made: list[ClosingWorker] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ClosingWorker(made), "127.0.0.1", 0)
    worker = endpoint.worker()
    worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await endpoint.ready(worker)
    given = known(stage, endpoint, worker).outstanding

    async def call() -> int:
        return (await stage.call("POST", path(endpoint, "completions"), {"n": 1}, key=endpoint.key))[0]

    assert await call() == 200
    tickets = given.tickets_open
    second = asyncio.ensure_future(call())
    await until(lambda: given.tickets_open > tickets, "the request is on its way to the worker")
    await asyncio.sleep(0.05)  # its bytes are in the kernel
    made[0].transport.abort()
    assert await second == 200
    assert len(made) == 2
    assert known(stage, endpoint, worker).suspicion.since is None
    server.close()
    for connection in made:
        connection.transport.abort()
    await asyncio.sleep(0)


async def test_a_client_that_does_not_read_stops_the_worker_before_memory_fills(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    piece, pieces, sent = b"x" * 1024 * 1024, 64, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"}}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * pieces))
        with contextlib.suppress(ConnectionError):
            for _ in range(pieces):
                writer.write(piece)
                await writer.drain()
                sent += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    worker = endpoint.worker()
    worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await endpoint.ready(worker)
    before = set(stage.server.http._connections)
    client = RawClient(stage, endpoint, send=False)
    (mine,) = await until(lambda: set(stage.server.http._connections) - before, "the client is connected")
    # The kernel takes nearly nothing, so the first piece fills the buffer of the transport.
    mine.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.send()
    await until(lambda: mine._flow.write_paused, "the client's buffer is full")
    pool = stage.server._parts.openai_api.client._pools[worker.url]
    await until(lambda: any(each.paused for each in pool._open), "the worker is paused")
    assert mine.transport.get_write_buffer_size() < 2 * len(piece)
    assert sent < pieces
    client.reset()
    server.close()
