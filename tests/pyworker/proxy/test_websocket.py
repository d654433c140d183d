"""WebSockets through the worker: bytes pass unchanged, at the pace of the slower side, and each end is reported."""

import asyncio
import base64
import os

import aiohttp
import pytest

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from tests.comfyui import ComfyUI
from tests.pyworker.harness import BOUND_SECONDS, until

PATHS = ("/echo", "/refuses", "/drops")


@pytest.fixture
async def comfyui():
    server = await ComfyUI().start()
    yield server
    await server.stop()


@pytest.fixture
async def make_socket_worker(make_worker, comfyui):
    async def make(*, parallel=True, **options):
        handlers = [
            HandlerConfig(
                route="/prompt",
                allow_parallel_requests=parallel,
                benchmark_config=BenchmarkConfig(dataset=[{"prompt": {}}], runs=1, concurrency=1),
            ),
            *(HandlerConfig(route=path, allow_parallel_requests=parallel, websocket=True) for path in PATHS),
        ]
        return await make_worker(WorkerConfig(handlers=handlers, model_server_port=comfyui.port, **options))

    return make


@pytest.fixture
async def worker(make_socket_worker):
    return await make_socket_worker()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(BOUND_SECONDS)) as session:
        yield session


def connect(session, worker, path="/echo", **options):
    headers = {"X-Stoker-Auth": worker.auth()["ticket"], **options.pop("headers", {})}
    return session.ws_connect(f"http://127.0.0.1:{worker.runtime.port}{path}", headers=headers, **options)


def handshake(worker, path="/echo", extra=""):
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extra}"
        f"X-Stoker-Auth: {worker.auth()['ticket']}\r\n\r\n"
    ).encode()


async def test_messages_pings_and_compression_pass_in_both_directions(session, worker, engine):
    async with connect(session, worker, compress=15, autoping=False, max_msg_size=0) as socket:
        assert socket.compress == 15
        await socket.send_str("é" * 1000)
        assert (await socket.receive()).data == "é" * 1000
        await socket.ping(b"are you there")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"are you there")
        large = os.urandom(3 * 2**20)
        await socket.send_bytes(large)
        assert (await socket.receive()).data == large
        await until(lambda: engine.statuses[-1]["num_requests_working"] == 1)
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Success"


async def test_close_codes_and_reasons_reach_the_other_side(session, worker, comfyui):
    async with connect(session, worker) as socket:
        await socket.send_str("close 4001")
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (4001, "as asked")
    async with connect(session, worker) as socket:
        await socket.close(code=4002)
    await until(lambda: not worker.runtime.proxy.active)
    assert comfyui.close_codes[-1] == 4002
    assert comfyui.cut == 0


async def test_what_the_model_answers_instead_of_a_websocket_is_passed_on(session, worker, engine):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
               "Sec-WebSocket-Version": "13", "X-Stoker-Auth": worker.auth()["ticket"]}  # fmt: skip
    async with session.get(f"http://127.0.0.1:{worker.runtime.port}/refuses", headers=headers) as answered:
        assert (answered.status, answered.headers["X-Why"]) == (403, "full")
        assert await answered.json() == {"detail": "no more sockets"}
        assert answered.headers["Connection"] == "close"
    await until(lambda: engine.finished)


async def test_the_origin_of_a_page_is_checked_by_the_ticket_and_not_by_the_model(session, worker):
    async with connect(session, worker, headers={"Origin": "https://page.example"}) as socket:
        await socket.send_str("hello")
        assert (await socket.receive()).data == "hello"


async def test_a_model_that_drops_the_connection_is_an_error_that_the_client_sees(session, worker, engine):
    async with connect(session, worker, "/drops") as socket:
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1011)
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Error"


async def test_a_client_that_disappears_is_cut_at_the_model_and_counts_as_cancelled(worker, comfyui, engine):
    reader, writer = await worker.connect()
    writer.write(handshake(worker))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.transport.abort()
    await until(lambda: comfyui.cut == 1)
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Cancelled"


async def test_a_client_that_has_sent_its_last_byte_still_gets_the_answer(worker, comfyui):
    reader, writer = await worker.connect()
    writer.write(handshake(worker))
    await reader.readuntil(b"\r\n\r\n")
    frame = b"\x81\x85\0\0\0\0hello" + b"\x88\x82\0\0\0\0" + (4003).to_bytes(2)
    writer.write(frame)
    writer.write_eof()
    async with asyncio.timeout(BOUND_SECONDS):
        answer = await reader.read()
    assert answer == b"\x81\x05hello" + b"\x88\x02" + (1000).to_bytes(2)
    assert comfyui.close_codes == [4003]
    await until(lambda: not worker.runtime.proxy.active)
    writer.close()


async def test_frames_of_any_size_take_no_memory_in_the_worker(worker, comfyui):
    """The client announces a frame of 2^62 bytes; the worker passes on what comes, and keeps none of it."""
    reader, writer = await worker.connect()
    writer.write(handshake(worker))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x82\xff" + (2**62).to_bytes(8) + b"\0\0\0\0")
    held = worker.runtime.server.memory.held_bytes
    for _ in range(32):
        writer.write(bytes(2**16))
        await writer.drain()
    assert worker.runtime.server.memory.held_bytes == held
    writer.transport.abort()
    await until(lambda: not worker.runtime.proxy.active)


async def test_a_client_that_does_not_read_slows_the_model_down(worker):
    reader, writer = await worker.connect()
    writer.write(handshake(worker))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\x8a\0\0\0\0flood 1000")
    (exchange,) = worker.runtime.proxy.active
    await until(lambda: exchange._model.paused)
    assert exchange.cycle.transport.get_write_buffer_size() < 2**20
    for _ in range(50):
        await reader.readexactly(2**20)
    writer.transport.abort()
    await until(lambda: not worker.runtime.proxy.active)


async def test_a_websocket_waits_for_its_turn_on_a_worker_that_runs_one_request_at_a_time(
    make_socket_worker, session
):
    worker = await make_socket_worker(parallel=False)
    first = await connect(session, worker)
    second = asyncio.create_task(connect(session, worker).__aenter__())
    await until(lambda: len(worker.runtime.queue) == 1)
    assert not second.done()
    await first.close()
    socket = await second
    await socket.send_str("my turn")
    assert (await socket.receive()).data == "my turn"
    await socket.close()


async def test_a_websocket_is_bounded_in_time(make_socket_worker, session):
    worker = await make_socket_worker(job_seconds_max=0.3)
    async with connect(session, worker) as socket:
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (1008, "websocket_over_time")


@pytest.mark.parametrize(
    "extra",
    [
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: h2c\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ],
)
async def test_a_handshake_that_two_readers_could_read_differently_is_refused(worker, comfyui, extra):
    seen = len(comfyui.seen)
    answer = await worker.exchange(handshake(worker, extra=extra) + b"abc")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert len(comfyui.seen) == seen


async def test_bytes_before_the_answer_to_the_handshake_are_passed_on_later_within_a_limit(worker, comfyui):
    reader, writer = await worker.connect()
    writer.write(handshake(worker) + b"\x81\x85\0\0\0\0early")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(7) == b"\x81\x05early"
    writer.close()
    await until(lambda: not worker.runtime.proxy.active)
    assert b"101 " not in await flooded(worker)


async def flooded(worker):
    try:
        return await worker.exchange(handshake(worker, "/prompt") + bytes(2**20))
    except ConnectionError:
        return b""


async def test_requests_after_a_refused_handshake_are_not_read(worker, comfyui):
    seen = len(comfyui.seen)
    smuggled = f"POST /prompt HTTP/1.1\r\nHost: w\r\nX-Stoker-Auth: {worker.auth()['ticket']}\r\nContent-Length: 2\r\n\r\n{{}}"
    answer = await worker.exchange(handshake(worker, "/prompt") + smuggled.encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert len(comfyui.seen) == seen
