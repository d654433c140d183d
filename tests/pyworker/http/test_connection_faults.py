"""Model servers that break off, and clients that read slowly: requests are answered and memory stays bounded."""

import asyncio
import contextlib
import json
import random
import socket
import time
import tracemalloc

import pytest
from aiohttp import web

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from stoker_pyworker.proxy.hooks import Response
from stoker_wire.http1.client import fetch
from stoker_wire.http1.flow_control import FlowControl
from stoker_wire.http1.limits import Limits
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from tests.pyworker.harness import until

BENCH = BenchmarkConfig(dataset=[{"prompt": "x"}], runs=1, concurrency=1)
ANSWER_SECONDS = 4


def echo(**options):
    return HandlerConfig(route="/echo", benchmark_config=BENCH, **options)


@contextlib.asynccontextmanager
async def server_that_sends(data):
    """A model server that answers /v1 with the bytes and closes. Other paths answer 200."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = head.lower().partition("content-length: ")[2].split("\r\n")[0]
                await reader.readexactly(int(length or 0))
                if head.startswith("POST /v1 "):
                    writer.write(data)
                    break
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize(
    "data",
    [
        b"HTT",
        b"HTTP/1.1 200 OK\r\ncontent-ty",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    ],
)
async def test_a_model_that_closes_before_its_head_is_complete_is_a_502(make_worker, data):
    async with server_that_sends(data) as port:
        handlers = [echo(), HandlerConfig(route="/v1", allow_parallel_requests=True)]
        worker = await make_worker(WorkerConfig(model_server_port=port, handlers=handlers))
        answer = await asyncio.wait_for(worker.post("/v1"), ANSWER_SECONDS)
        assert (answer.status_code, answer.json()["error"]) == (502, "model_failed")


async def test_pipelined_requests_wait_while_the_client_does_not_read(make_worker):
    worker = await make_worker()
    reader, writer = await worker.connect()
    writer.transport.pause_reading()
    for _ in range(8):
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    (client,) = await until(lambda: worker.runtime.server._connections)
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert client.transport.get_write_buffer_size() < 8 * 1024 * 1024
    writer.transport.resume_reading()
    heads = 0
    end = b""
    async with asyncio.timeout(30):
        while heads < 400:
            data = end + await reader.read(2**20)
            assert data != end, f"closed after {heads} answers"
            heads += data.count(b"HTTP/1.1 200 OK")
            end = data[-14:]
    writer.close()


async def test_an_incomplete_pipelined_request_does_not_cut_unread_responses(make_worker):
    worker = await make_worker(limits=Limits(head_seconds_max=0.1))
    reader, writer = await worker.connect()
    writer.transport.pause_reading()
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 200 + b"GET /heal")
    (client,) = await until(lambda: worker.runtime.server._connections)
    await until(lambda: client.transport.get_write_buffer_size() > 65536)
    for _ in range(2):
        clock = worker.runtime.server._timer
        await until(lambda clock=clock: worker.runtime.server._timer is not clock)
    writer.transport.resume_reading()
    async with asyncio.timeout(30):
        answers = await reader.read(-1)
    assert answers.count(b"HTTP/1.1 200 OK") == 200
    assert answers.rpartition(b"HTTP/1.1 ")[2].startswith(b"408 ")
    writer.close()


async def test_a_body_in_tiny_chunks_uses_about_the_memory_that_is_counted(worker):
    body = b'{"auth_data": {}, "payload": {"text": "' + b"x" * 500_000
    chunks = b"".join(b"2\r\n%b\r\n" % body[at : at + 2] for at in range(0, len(body), 2))
    _, writer = await worker.connect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await until(lambda: worker.runtime.server.memory.held_bytes >= len(body) - 2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * len(body)
    writer.close()


async def test_heads_of_waiting_requests_count_towards_the_memory_limit(make_worker, model):
    """One read may contain thousands of requests, and each uses many times the memory of its bytes."""
    worker = await make_worker(limits=Limits(bodies_bytes_max=300_000))
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/held"))
    await until(lambda: model.answering == 1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        small = b"GET / HTTP/1.1\r\nHost:\r\n" + b"a:\r\n" * 90 + b"\r\n"
        writer.write(small * 200)
        (client,) = worker.runtime.server._connections
        await until(lambda: client._waiting)
        await asyncio.sleep(0.1)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 600_000
    refused = await worker.exchange(worker.raw_request("/echo", {"text": "x" * 100_000}))
    assert b'"error":"bodies_too_large"' in refused
    model.go.set()
    writer.close()
    await until(lambda: worker.runtime.server.memory.held_bytes == 0)
    assert (await worker.post("/echo")).status_code == 200
    await until(lambda: worker.runtime.server.memory.held_bytes == 0)


@pytest.mark.parametrize("pieces", [(1, 1, 1), (1, 5000, 1, 1), (5000, 1, 1, 5000, 5000), (5000, 5000), (2,)])
async def test_a_chunked_body_is_assembled_for_any_chunk_size(worker, pieces):
    text = "".join(chr(97 + number % 26) * size for number, size in enumerate(pieces))
    body = json.dumps(worker.envelope({"text": text})).encode()
    at = body.index(text.encode())
    cuts = [body[:at]]
    for size in pieces:
        cuts.append(body[at : at + size])
        at += size
    cuts.append(body[at:])
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts) + b"0\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nConnection: close\r\n"
    answer = await worker.exchange(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.endswith(json.dumps({"text": text}).encode())


async def test_a_steady_reader_may_take_longer_than_the_stall_limit(make_worker):
    async def large(_request, _model):
        return Response(body=b"x" * 40_000_000, content_type="application/octet-stream")

    route = HandlerConfig(route="/empty", allow_parallel_requests=True, response_generator=large)
    worker = await make_worker(handlers=[echo(), route], limits=Limits(stall_seconds_max=1.0))
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/empty"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 40000000" in head
    received = 0
    while received < 40_000_000:
        data = await reader.read(100_000)
        assert data, f"closed after {received} bytes"
        received += len(data)
        await asyncio.sleep(0.01)
    writer.close()


def test_a_client_that_reads_a_few_bytes_is_stalled():
    """Tests FlowControl directly: through a socket, the kernel's buffers would read for the client."""

    class Transport:
        unread = 10_000_000

        def get_write_buffer_size(self):
            return self.unread

    transport = Transport()
    flow = FlowControl(transport, stall_seconds_max=60.0)
    flow.pause_writing()
    begun = time.monotonic()
    for second in range(59):
        transport.unread -= 1
        assert not flow.is_stalled(begun + second)
    assert flow.is_stalled(begun + 61)


async def test_an_http_1_0_client_sees_a_reset_when_its_response_breaks_off(worker, model):
    """The response has neither length nor chunks, so an orderly close would look like its end."""
    body = json.dumps(worker.envelope()).encode()
    head = b"POST /dies-midway HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await worker.connect()
    writer.write(head % len(body) + body)
    await reader.readuntil(b"data: 1")
    model.go.set()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
    writer.close()


async def test_a_client_that_does_not_read_the_end_of_its_response_is_disconnected(make_worker):
    limits = Limits(stall_seconds_max=0.3, idle_seconds_max=0.3)
    worker = await make_worker(limits=limits)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        client.connect(("127.0.0.1", worker.runtime.port))
        await until(lambda: worker.runtime.server._connections)
        (connection,) = worker.runtime.server._connections
        while not connection.transport.get_write_buffer_size():
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.01)
        assert not connection._flow.write_paused, "the test needs a response smaller than the high-water mark"
        await until(lambda: not worker.runtime.server.connections)


async def test_an_evicted_connection_is_closed_even_with_an_unread_response(make_worker):
    worker = await make_worker(limits=Limits(connections_max=1))
    gone, forget = [], worker.runtime.server.remove
    worker.runtime.server.remove = lambda connection: (gone.append(connection), forget(connection))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        client.connect(("127.0.0.1", worker.runtime.port))
        await until(lambda: worker.runtime.server._connections)
        (connection,) = worker.runtime.server._connections
        while not connection.transport.get_write_buffer_size():
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.01)
        _, writer = await worker.connect()
        await until(lambda: connection in gone)
        writer.close()


async def test_a_slow_reader_receives_the_complete_last_response(make_worker):
    """A client that makes progress is not stalled, however long the complete response takes."""

    async def large(_request, _model):
        return Response(body=b"x" * 12_000_000, content_type="application/octet-stream")

    route = HandlerConfig(route="/empty", allow_parallel_requests=True, response_generator=large)
    worker = await make_worker(handlers=[echo(), route], limits=Limits(stall_seconds_max=0.5))
    reader, writer = await worker.connect()
    request = worker.raw_request("/empty").replace(b"Host: w", b"Host: w\r\nConnection: close")
    writer.write(request)
    await reader.readuntil(b"\r\n\r\n")
    received = 0
    while data := await reader.read(100_000):
        received += len(data)
        await asyncio.sleep(0.01)
    assert received == 12_000_000
    writer.close()


@pytest.mark.parametrize("most", [1, 2])
async def test_all_waiting_requests_fail_when_the_model_refuses_connections(make_worker, model, most):
    worker = await make_worker(model_connections_max=most)
    await model.stop()
    posts = (worker.post("/echo") for _ in range(5))
    answers = await asyncio.wait_for(asyncio.gather(*posts), ANSWER_SECONDS)
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {
        (502, "model_unreachable")
    }


async def test_a_request_that_crashes_the_model_is_not_sent_again(worker, model):
    assert (await worker.post("/echo")).status_code == 200
    connections = model.connections
    assert (await worker.post("/dies")).status_code == 502
    assert [seen.path for seen in model.seen].count("/dies") == 1
    assert model.seen[-1].connection <= connections, "the test needs a reused connection"


@pytest.mark.parametrize("text", ["", "x" * 1_000_000])
async def test_a_request_on_a_connection_that_the_model_had_closed_is_sent_again(worker, model, text):
    assert (await worker.post("/echo")).status_code == 200
    payload = {"text": text}
    pool = worker.runtime.pool
    submit = pool.submit

    def submit_late(sink, request, **options):
        # The worker detects this close only after it has sent the request.
        pool.submit = submit
        for writer in model.writers:
            writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        submit(sink, request, **options)

    pool.submit = submit_late
    answer = await worker.post("/echo", payload)
    assert (answer.status_code, answer.json()) == (200, payload)


async def test_a_probe_succeeds_while_requests_use_every_connection(make_worker, model):
    worker = await make_worker(model_connections_max=1, model_healthcheck_url="/health")
    held = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    assert await asyncio.wait_for(worker.runtime.startup.probe.check(), ANSWER_SECONDS) is None
    model.go.set()
    assert (await held).status_code == 200


async def test_a_request_waiting_for_a_fresh_connection_does_not_block_idle_ones(model):
    pool = UpstreamPool(f"http://127.0.0.1:{model.port}", connections_max=2)

    async def post(path):
        return await fetch(pool, "POST", path, b"{}", seconds_max=ANSWER_SECONDS)

    await asyncio.gather(post("/echo"), post("/echo"))
    pool._idle[-1].transport.abort()
    await until(lambda: pool.open_count == 1)
    submit = pool.submit
    # Like a request that is sent again after its connection was closed.
    pool.submit = lambda sink, request: submit(sink, request, fresh=True)
    held = asyncio.create_task(post("/held"))
    await asyncio.sleep(0)
    pool.submit = submit
    assert len(pool._waiting) == 1
    assert (await post("/echo")).status == 200
    model.go.set()
    assert (await held).status == 200
    pool.close()


async def test_an_invalid_host_name_is_an_upstream_error():
    pool = UpstreamPool(f"http://{'a' * 64}.example:80")
    with pytest.raises(UpstreamError, match="takes no connection"):
        await fetch(pool, "GET", "/", seconds_max=ANSWER_SECONDS)
    pool.close()


class ClosingServer(asyncio.Protocol):
    """Answers one request per connection, and closes with the next one in its kernel's buffer."""

    answered = 0
    connections: "list[ClosingServer]" = []

    def connection_made(self, transport):
        self.transport = transport
        self.connections.append(self)

    def data_received(self, data):
        type(self).answered += 1
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        self.transport.pause_reading()


async def test_a_request_that_the_server_did_not_read_before_it_closed_is_sent_again():
    ClosingServer.answered, ClosingServer.connections = 0, []
    server = await asyncio.get_running_loop().create_server(ClosingServer, "127.0.0.1", 0)
    pool = UpstreamPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for number in range(1, 20):
        first = asyncio.create_task(fetch(pool, "POST", "/", b"{}", seconds_max=ANSWER_SECONDS))
        if number > 1:
            await asyncio.sleep(0)  # the request is written
            ClosingServer.connections[-1].transport.abort()
        assert (await first).status == 200
    assert ClosingServer.answered == 19
    ClosingServer.connections[-1].transport.abort()
    pool.close()
    server.close()


async def test_a_request_that_arrives_between_the_shutdown_and_the_close_of_a_connection_is_sent_again():
    """llama.cpp's server ends an idle connection in these two steps."""
    ClosingServer.answered, ClosingServer.connections = 0, []
    server = await asyncio.get_running_loop().create_server(ClosingServer, "127.0.0.1", 0)
    pool = UpstreamPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert (await fetch(pool, "POST", "/", b"{}", seconds_max=ANSWER_SECONDS)).status == 200
    second = asyncio.create_task(fetch(pool, "POST", "/", b"{}", seconds_max=ANSWER_SECONDS))
    await asyncio.sleep(0)  # the request is written
    ending = ClosingServer.connections[0].transport
    ending.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    await asyncio.sleep(0.01)  # the pool sees the end of the connection, and no reset
    ending.abort()
    assert (await second).status == 200
    assert ClosingServer.answered == 2
    ClosingServer.connections[-1].transport.abort()
    pool.close()
    server.close()


async def test_a_server_that_closes_idle_connections_sooner_than_the_pool_fails_no_request():
    """The server closes after 20 ms; the requests come about when it does."""
    handled = 0

    async def handle(_):
        nonlocal handled
        handled += 1
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, keepalive_timeout=0.02, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pool = UpstreamPool(f"http://127.0.0.1:{runner.addresses[0][1]}")
    draw = random.Random(1)
    for _ in range(100):
        assert (await fetch(pool, "POST", "/", b"{}", seconds_max=ANSWER_SECONDS)).status == 200
        await asyncio.sleep(draw.uniform(0.018, 0.023))
    assert handled == 100
    pool.close()
    await runner.cleanup()


async def test_the_host_field_of_an_ipv6_address_has_brackets():
    assert UpstreamPool("http://[::1]:8000").authority == b"[::1]:8000"
