"""The server refuses malformed, oversized, slow and smuggled requests with a problem, and closes."""

import asyncio
import json
import socket

import pytest

from stoker_wire.http1.limits import Limits
from tests.pyworker.harness import BOUND_SECONDS, until

HEAD = b"POST /echo HTTP/1.1\r\nHost: w\r\n"


def problem(answer):
    """Status and code of the last response in the bytes."""
    head, _, body = answer.rpartition(b"\r\n\r\n")
    status = int(head.rpartition(b"HTTP/1.1 ")[2][:3])
    parsed = json.loads(body)
    assert parsed["success"] is False
    assert parsed["msg"] == parsed["error_msg"]
    return status, parsed["error"]


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"this is not HTTP\r\n\r\n", (400, "malformed_http")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "malformed_http")),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", (400, "malformed_http")),
        (HEAD + b"Content-Length: -1\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"X: a\r\n folded\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"X: a\x00b\r\n\r\n", (400, "malformed_http")),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", (400, "malformed_http")),
        (b"POST /echo HTTP/1.1\r\n\r\n", (400, "host_missing")),
        (b"POST /echo HTTP/2.0\r\nHost: w\r\n\r\n", (505, "http_version_unsupported")),
        (HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", (400, "upgrade_unsupported")),
        (HEAD + b"Expect: a-miracle\r\nContent-Length: 1\r\n\r\n", (417, "expectation_unknown")),
        (HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n", (431, "head_too_large")),
        (HEAD + b"X: " + b"a" * 40_000, (431, "head_too_large")),
        (b"POST /" + b"a" * 40_000, (431, "head_too_large")),
        (HEAD + b"X: a\r\n" * 101 + b"\r\n", (431, "head_too_large")),
        (HEAD + b"Content-Length: 70000000\r\n\r\n", (413, "body_too_large")),
    ],
)  # fmt: skip
async def test_an_invalid_request_is_refused_with_its_problem(worker, request_bytes, expected):
    assert problem(await worker.exchange(request_bytes)) == expected
    assert (await worker.post("/echo")).status_code == 200


async def test_a_chunked_body_over_the_limit_is_refused(make_worker):
    worker = await make_worker(body_bytes_max=10_000)
    chunks = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    answer = await worker.exchange(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 3)
    assert problem(answer) == (413, "body_too_large")


async def test_the_memory_of_all_bodies_is_limited_and_released(make_worker, model):
    worker = await make_worker(limits=Limits(bodies_bytes_max=200_000))
    held = asyncio.create_task(worker.post("/held", {"text": "x" * 150_000}))
    await until(lambda: model.answering == 1)
    refused = await worker.exchange(worker.raw_request("/echo", {"text": "x" * 100_000}))
    assert problem(refused) == (503, "bodies_too_large")
    model.go.set()
    assert (await held).status_code == 200
    await until(lambda: worker.runtime.server.memory.held_bytes == 0)
    assert (await worker.post("/echo", {"text": "x" * 100_000})).status_code == 200


async def test_endless_trailers_are_refused(worker):
    answer = await worker.exchange(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 200)
    assert problem(answer) == (431, "head_too_large")


@pytest.mark.parametrize("sent", [b"POST /ec", HEAD, HEAD + b"Content-Length: 10\r\n\r\nabc"])
async def test_an_incomplete_request_times_out_with_408(make_worker, sent):
    worker = await make_worker(limits=Limits(head_seconds_max=0.3, body_seconds_max=0.3))
    assert problem(await worker.exchange(sent)) == (408, "request_timeout")


async def test_a_slow_pipelined_request_does_not_cut_the_running_one(make_worker, model):
    worker = await make_worker(limits=Limits(head_seconds_max=0.2))
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/held") + b"POST /ec")
    await until(lambda: model.answering == 1)
    await until(lambda: time_passes(worker), BOUND_SECONDS)
    model.go.set()
    assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
    assert problem(await reader.read()) == (408, "request_timeout")
    writer.close()


def time_passes(worker, _ticks=[]):  # noqa: B006 - counts ticks of the server's timer
    """Whether the server's timer has expired twice since the first call."""
    clock = worker.runtime.server._timer
    if clock not in _ticks:
        _ticks.append(clock)
    return len(_ticks) > 2


async def test_an_idle_connection_is_closed(make_worker):
    worker = await make_worker(limits=Limits(idle_seconds_max=0.2))
    reader, writer = await worker.connect()
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_never_reads_is_disconnected(make_worker, model):
    worker = await make_worker(limits=Limits(stall_seconds_max=0.3))
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/endless"))
    await until(lambda: model.cut == 1)
    assert worker.runtime.counts.held == 0
    writer.close()


async def test_a_connection_over_the_limit_is_refused_with_503(make_worker, model):
    worker = await make_worker(limits=Limits(connections_max=2))
    held = [await worker.connect() for _ in range(2)]
    for _, writer in held:  # active connections are not evicted
        writer.write(worker.raw_request("/held"))
    await until(lambda: model.answering == 2)
    assert problem(await worker.exchange(b"")) == (503, "too_many_connections")
    for _, writer in held:
        writer.close()


async def test_a_connection_with_an_invalid_head_can_be_evicted(make_worker):
    worker = await make_worker(limits=Limits(connections_max=1, linger_seconds=60.0))
    reader, writer = await worker.connect()
    writer.write(b"this is not HTTP\r\n\r\n")
    assert problem(await reader.read()) == (400, "malformed_http")
    answer = await worker.exchange(b"GET /healthz HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_pipelined_requests_are_answered_in_order(worker, model):
    reader, writer = await worker.connect()
    requests = [worker.raw_request("/held", {"n": 0})]
    requests += [worker.raw_request("/echo", {"n": number}) for number in range(1, 20)]
    writer.write(b"".join(requests))
    await until(lambda: model.answering == 1)
    model.go.set()
    for number in range(20):
        answer = await reader.readuntil(b"}")
        assert answer.endswith(b'{"n": %d}' % number)
    writer.close()


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 1000])
async def test_requests_are_parsed_regardless_of_packet_boundaries(worker, piece):
    body = json.dumps(worker.envelope({"n": 1})).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:])) + b"0\r\n\r\n"
    chunked = HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    stream = chunked + worker.raw_request("/echo", {"n": 2}) + b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n"
    reader, writer = await worker.connect()
    for start in range(0, len(stream), piece):
        writer.write(stream[start : start + piece])
        await writer.drain()
    for end in (b'{"n": 1}', b'{"n": 2}', b'{"ready":true,"draining":false}'):
        answer = await reader.readuntil(end)
        assert answer.count(b"HTTP/1.1 200 OK") == 1
    writer.close()


async def test_an_invalid_pipelined_request_does_not_affect_the_one_before(worker):
    answer = await worker.exchange(worker.raw_request("/echo", {"n": 1}) + b"rubbish\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert problem(answer) == (400, "malformed_http")


async def test_connection_close_is_honoured(worker):
    request = worker.raw_request("/echo").replace(b"Host: w", b"Host: w\r\nConnection: close")
    answer = await worker.exchange(request)
    assert b"connection: close" in answer
    assert answer.endswith(b"{}")


async def test_an_absolute_request_target_is_accepted(worker):
    answer = await worker.exchange(b"GET http://w/healthz HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"payload": {}}', "auth_data"),
        (b'{"auth_data": 3, "payload": {}}', "auth_data"),
        (b'{"auth_data": {}}', "payload"),
        (b'{"auth_data": {"ticket": 4}, "payload": {}}', "ticket"),
        (b'{"auth_data": {}, "payload": ' + b"[" * 100_000, "nested"),
        (b'{"auth_data": {"ticket": "\xed"}, "payload": {}}', "utf-8"),
    ],
)
async def test_a_body_that_is_not_the_envelope_is_422(worker, body, message):
    answer = await worker.client.post("/echo", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (422, "envelope_invalid")
    assert message in answer.json()["msg"]


async def test_a_raw_body_without_auth_is_401(worker):
    answer = await worker.client.post("/echo", content=b"x", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["error"]) == (401, "auth_missing")


@pytest.mark.parametrize("auth", ["{", '{"ticket": 3}', "{" * 5000])
async def test_an_unreadable_auth_header_is_422(worker, auth):
    answer = await worker.client.post("/echo", content=b"x", headers={"x-stoker-auth": auth})
    assert (answer.status_code, answer.json()["error"]) == (422, "auth_invalid")


async def test_client_sockets_have_tcp_keepalive(worker, model):
    """A client whose network is gone sends no FIN, and a NAT router drops connections without traffic."""
    held = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    for connection in worker.runtime.server._connections:
        known = connection.transport.get_extra_info("socket")
        assert known.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between, asked = (
            known.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + between * asked <= 60
    model.go.set()
    assert (await held).status_code == 200
