"""How the HTTP server frames its responses, and what it tells clients of HTTP/1.0 and clients that hold a body back."""

import asyncio
import contextlib
from datetime import UTC
from email.utils import parsedate_to_datetime

import pytest

from stoker_wire.http1.client import fetch
from stoker_wire.http1.limits import Limits
from stoker_wire.http1.server import HttpServer
from stoker_wire.http1.server_connection import Application
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

BOUND_SECONDS = 30
POST = b"POST / HTTP/1.1\r\nHost: w\r\n"


@contextlib.asynccontextmanager
async def connected(application: Application):
    """A client's reader and writer, connected to a server with this application."""
    server = HttpServer(application, Limits())
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            yield reader, writer
    finally:
        writer.close()
        await server.close(0)


def echo(request, cycle):
    cycle.respond(200, request.body)


def stream(request, cycle):
    cycle.start(200, (), length=len(request.body))
    cycle.write_piece(request.body)
    cycle.finish()


async def test_an_empty_piece_does_not_end_a_streamed_response():
    def pieces(_, cycle):
        cycle.start(200, ())
        for piece in (b"", b"one", b"", b"two", b""):
            cycle.write_piece(piece)
        cycle.finish()

    async with connected(pieces) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "length", "body"),
    [
        (b"GET", None, b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        (b"GET", 6, b"onetwo"),
        (b"HEAD", 6, b""),
    ],
    ids=["chunked", "of a known length", "without a body"],
)
async def test_the_first_piece_of_a_body_may_go_out_with_the_head(method, length, body):
    def pieces(_, cycle):
        cycle.start(200, (), length=length, first=b"one")
        cycle.write_piece(b"two")
        cycle.finish()

    async with connected(pieces) as (reader, writer):
        for _ in range(2):
            writer.write(method + b" / HTTP/1.1\r\nHost: w\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(len(body)) == body


@pytest.mark.parametrize(
    "fields", [(), ((b"date", b"Mon, 30 Nov 2026 10:00:00 GMT"),)], ids=["none", "the application's"]
)
@pytest.mark.parametrize("begin", ["respond", "start"])
async def test_every_response_has_one_date(begin, fields):
    """Workers correct their clocks by it."""

    def answer(_, cycle):
        if begin == "respond":
            cycle.respond(200, b"x", headers=fields)
        else:
            cycle.start(200, fields, length=0)
            cycle.finish()

    async with connected(answer) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n")
        dates = [
            line for line in (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n") if line[:5] == b"date:"
        ]
        assert len(dates) == 1
        assert not fields or dates == [b"date: " + fields[0][1]]
        assert parsedate_to_datetime(dates[0][6:].decode()).tzinfo is UTC


async def test_a_malformed_request_is_answered_with_a_date():
    async with connected(echo) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost : w\r\n\r\n")
        assert b"\r\ndate: " in await reader.readuntil(b"\r\n\r\n")


async def test_a_client_of_http_1_0_gets_no_interim_response():
    async with connected(echo) as (reader, writer):
        writer.write(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        await asyncio.sleep(0)
        writer.write(b"x")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_pipelined_client_is_asked_for_its_body_after_the_response_before():
    cycles = asyncio.Queue()
    async with connected(lambda _, cycle: cycles.put_nowait(cycle)) as (reader, writer):
        held = POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        writer.write(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n" + held)
        first = await cycles.get()
        first.respond(200, b"first")
        assert (await reader.readuntil(b"first")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        second = await cycles.get()
        assert second.request.body == b"x"


async def test_a_client_that_has_begun_its_body_is_not_asked_for_it():
    async with connected(echo) as (reader, writer):
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nx")
        await asyncio.sleep(0)
        writer.write(b"y")
        assert (await reader.readuntil(b"xy")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("application", [echo, stream])
@pytest.mark.parametrize(
    ("version", "asked", "told"),
    [
        (b"1.0", b"Connection: keep-alive\r\n", b"\r\nconnection: keep-alive\r\n"),
        (b"1.0", b"", b"\r\nconnection: close\r\n"),
        (b"1.1", b"Connection: close\r\n", b"\r\nconnection: close\r\n"),
        (b"1.1", b"", None),
    ],
)
async def test_a_client_is_told_whether_its_connection_stays_open(application, version, asked, told):
    async with connected(application) as (reader, writer):
        writer.write(b"POST / HTTP/" + version + b"\r\nHost: w\r\nContent-Length: 1\r\n" + asked + b"\r\nx")
        head = await reader.readuntil(b"\r\n\r\n")
        assert told in head if told else b"connection" not in head


ENDLESS = {
    "a header field": (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 1024),
    "header fields": (b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 100),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 10),
    "a trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ", b"a" * 1024),
    "a chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 1024),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
async def test_a_server_that_sends_no_body_without_end_is_given_up(begin, more):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            for _ in range(20_000):  # 20 MB: more than is ever read
                writer.write(more)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = UpstreamPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        with pytest.raises(UpstreamError, match="without a byte of a body"):
            await fetch(pool, "GET", "/", seconds_max=BOUND_SECONDS)
    finally:
        pool.close()
        server.close()


async def test_a_server_that_closes_lets_no_cut_response_look_complete():
    """Without length and chunks, an orderly close is the end of a response."""

    def begin(_, cycle):
        cycle.start(200, ())
        cycle.write_piece(b"first")

    server = HttpServer(begin, Limits())
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(BOUND_SECONDS):
        await reader.readuntil(b"first")
        await server.close(0)
        with pytest.raises(ConnectionResetError):
            await reader.read()
    writer.close()


async def test_a_complete_response_to_http_1_0_ends_in_an_orderly_close():
    def whole(_, cycle):
        cycle.start(200, ())
        cycle.write_piece(b"x" * 10_000_000)
        cycle.finish()

    async with connected(whole) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.read()) == 10_000_000


@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
async def test_the_rest_of_a_body_is_dropped_when_the_server_has_answered(closing):
    answered = asyncio.Event()
    received = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n" + closing + b"\r\n")
        await answered.wait()
        size = 0
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**20):
                size += len(piece)
        received.set_result(size)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = UpstreamPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    body = b"x" * 32 * 1024 * 1024
    try:
        assert (await fetch(pool, "POST", "/", body, seconds_max=BOUND_SECONDS)).status == 413
        answered.set()
        assert await asyncio.wait_for(received, BOUND_SECONDS) < len(body)
        assert pool.is_unused
    finally:
        pool.close()
        server.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_behind_many_requests_is_noticed(reset):
    """Reading pauses at a number of waiting requests, so no end of the connection is read."""
    left, begun = asyncio.Event(), asyncio.Event()

    class Listener:
        def client_disconnected(self):
            left.set()

    def hold(_, cycle):
        cycle.listener = Listener()
        begun.set()

    async with connected(hold) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n" * 20)
        await begun.wait()
        if reset:
            writer.transport.abort()
        else:
            writer.close()
        await left.wait()
