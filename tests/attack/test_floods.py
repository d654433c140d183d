"""Connections and requests over a limit are refused and closed, while other clients are served."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.attack.conftest import KEY, SERVERS, answers_in, problem_in, read_all, until
from webserver.connections import ConnectionLimiter, open_files_max

ROOT = Path(__file__).parents[2]
FLOOD = 2000


@contextlib.asynccontextmanager
async def flood(server, count):
    """So many connections: half of them silent, half with half a head, and none that says more."""
    peers = [socket.socket() for _ in range(count)]
    loop = asyncio.get_running_loop()
    try:
        for number, peer in enumerate(peers):
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", server.port))
            if number % 2:
                peer.send(b"GET /healthz HTT")
        yield
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_thousands_of_idle_connections_do_not_block_others(target, name):
    server = await target(name, connections_max=FLOOD // 2)
    async with flood(server, FLOOD):
        assert await server.serves()
        assert server.connections() <= FLOOD // 2


@pytest.mark.parametrize("name", SERVERS)
async def test_a_client_that_comes_again_and_again_is_not_the_one_that_makes_room(target, name):
    server = await target(name, connections_max=60)
    reader, writer = await server.connect()
    for _ in range(4):  # each time more than there is room for
        writer.write(server.request())
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        async with flood(server, 40):
            writer.write(server.request())
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            async with flood(server, 40):
                assert server.connections() <= 60
    writer.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_connection_over_the_limit_gets_a_503(target, name):
    server = await target(name, connections_max=4)
    at_work = [await server.connect() for _ in range(4)]
    for _, writer in at_work:
        writer.write(server.head("Content-Length: 10", "") + b"{")
    await until(lambda: server.connections() == 4 and not server.idle(), "four connections are at work")
    answers = [await server.say(b"") for _ in range(3)]
    assert {problem_in(answer) for answer in answers} == {(503, "too_many_connections")}
    for reader, writer in at_work:
        writer.write(b'"a": 1}  ')
        assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
        writer.close()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_head_that_comes_a_byte_at_a_time_is_cut_short(target, name):
    server = await target(name, head_seconds_max=0.3)
    reader, writer = await server.connect()

    async def drip():
        with contextlib.suppress(ConnectionError):
            for byte in server.head("X: " + "a" * 4000, ""):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    assert problem_in(await read_all(reader)) == (408, "request_timeout")
    dripping.cancel()
    writer.close()
    assert await server.serves()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_body_that_does_not_come_is_given_up(target, name):
    server = await target(name, body_seconds_max=0.3)
    status, code = problem_in(await server.say(server.head("Content-Length: 100", "") + b"{"))
    assert (status, code) in {(408, "body_timeout"), (408, "request_timeout")}


@pytest.mark.parametrize("name", SERVERS)
async def test_a_connection_that_asks_nothing_is_closed(target, name):
    server = await target(name, idle_seconds_max=0.3)
    assert await server.say(b"") == b""


@pytest.mark.parametrize("name", ["engine", "worker"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413(target, name, declared):
    server = await target(name, body_bytes_max=10_000)
    if declared:
        sent = server.head("Content-Length: 20000", "Connection: close", "") + b"x" * 20_000
    else:
        pieces = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        sent = server.head("Transfer-Encoding: chunked", "Connection: close", "") + pieces * 4
        sent += b"0\r\n\r\n"
    assert problem_in(await server.say(sent)) == (413, "body_too_large")


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    "fields", [[f"X-{number}: y" for number in range(200)], ["X: " + "y" * 40_000]], ids=["many", "long"]
)
async def test_a_flood_of_header_fields_is_431(target, name, fields):
    server = await target(name)
    assert problem_in(await server.say(server.head(*fields, ""))) == (431, "head_too_large")
    assert await server.serves()


@pytest.mark.parametrize("name", SERVERS)
async def test_an_endless_chunk_extension_ends_with_the_time_of_the_body(target, name):
    server = await target(name, body_seconds_max=0.3)
    reader, writer = await server.connect()

    async def pour():
        with contextlib.suppress(ConnectionError):
            writer.write(server.head("Transfer-Encoding: chunked", "") + b"1;")
            while True:
                writer.write(b"a" * 1000)
                await writer.drain()
                await asyncio.sleep(0.001)

    pouring = asyncio.create_task(pour())
    answer = await read_all(reader)
    assert answers_in(answer) == 1
    assert answer[9:10] == b"4"
    pouring.cancel()
    writer.close()


def test_the_processs_open_files_bound_the_connections(monkeypatch):
    monkeypatch.setattr("webserver.connections.open_files_max", lambda: 1024)

    class Server:
        pass

    class Wanted:
        connections_max = 40_000

    assert ConnectionLimiter(Server(), Wanted()).connections_max == 1024 - 256
    assert open_files_max() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_process_with_few_files_is_not_stopped_by_idle_connections(tmp_path):
    """A process with a low limit of open files must bound its connections; otherwise accept fails for all clients."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"state_dir": str(tmp_path / "state"), "api_keys": [KEY]}))
    command = [sys.executable, "-m", "hosts", "--settings", str(settings)]
    process = subprocess.Popen(
        ["bash", "-c", 'ulimit -n 400; exec "$@"', "-", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        host, _, port = url.removeprefix("http://").rpartition(":")
        with contextlib.ExitStack() as held:
            for _ in range(600):
                held.enter_context(socket.create_connection((host, int(port)), timeout=10))
            assert httpx.get(f"{url}/healthz", timeout=10, trust_env=False).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()
