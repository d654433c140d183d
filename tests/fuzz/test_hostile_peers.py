"""The client and the CLI against arbitrary answers of engine and worker: one typed error or one line, never a
traceback."""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.loop_thread import LoopThread
from tests.fuzz.size import examples
from tests.fuzz.values import STRANGE, anything, dump
from tests.sdk.peers import ACCOUNT_KEY, Peers, Reply

# A failing example prints every drawn byte; its length is not a second failure.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

QUICK = stoker.RetryPolicy(
    refusals_max=1, failures_max=1, engine_outage_seconds_max=0.02, pause_seconds_first=0.001, pause_seconds_max=0.002
)  # fmt: skip

ENDPOINT = {"id": 7, "endpoint_name": "llm", "api_key": "k"}
SHAPES: list[Any] = [
    {"success": True, "results": anything}, {"success": True, "result": anything}, {"success": False, "msg": anything, "error": anything},
    {"success": True, "results": [ENDPOINT]}, {"decisions": anything}, {"decisions": [{"at": anything, "kind": anything, "reason": anything}]},
    {"dollars": anything, "by_worker": anything}, [{"id": anything, "status": anything, "perf": anything}], {"info0": anything},
    {"url": anything, "cost": anything, "endpoint": "llm", "reqnum": anything, "request_idx": anything, "signature": "x"},
    {"endpoint": "llm", "request_idx": anything, "status": anything, "eta_s": anything}, {"advice": anything}, {"id": anything},
    {"state": anything, "workers": anything, "targets": anything, "waits": anything, "load_per_second": anything},
]  # fmt: skip


def filled(shape: Any) -> st.SearchStrategy[Any]:
    """The shape with something in its places."""
    if isinstance(shape, st.SearchStrategy):
        return shape
    if isinstance(shape, dict):
        return st.fixed_dictionaries({name: filled(inner) for name, inner in shape.items()})
    if isinstance(shape, list):
        return st.tuples(*(filled(inner) for inner in shape)).map(list)
    return st.just(shape)


BODIES = (
    st.one_of([filled(shape) for shape in SHAPES]).map(dump)
    | st.sampled_from(STRANGE).map(dump)
    | anything.map(dump)
    | st.binary(max_size=40)
)
HEADERS: list[dict[str, str]] = [
    {}, {}, {}, {"Content-Type": "text/html; charset=nonsense"}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "br, br"},
    {"Retry-After": "never"}, {"Retry-After": "-1e999"}, {"Server-Timing": "queue;dur=NaN, model;dur=x, ;;;"}, {"X-Stoker-Worker": "9" * 5000},
    {"Location": "\xff"}, {"Set-Cookie": "a" * 9000}, {"Content-Type": "text/event-stream"}, {"Content-Type": "application/x-ndjson"},
]  # fmt: skip
# 429 and 5xx are retried until the timeout; the CLI's timeout is a minute, so they are left out here.
FINAL = [200, 200, 200, 200, 201, 204, 301, 304, 400, 401, 403, 404, 409, 410, 418, 422]
PASSING = [429, 500, 502, 503]


@dataclass(frozen=True)
class Answer:
    """The answer to every call."""

    status: int
    headers: dict[str, str]
    body: bytes
    packed: bool

    async def __call__(self, _: web.Request, __: Any) -> web.StreamResponse:
        packs = self.packed and self.headers.get("Content-Encoding") == "gzip"
        return web.Response(
            status=self.status,
            headers={"Content-Type": "application/json", **self.headers},
            body=gzip.compress(self.body) if packs else self.body,
        )

    def __repr__(self) -> str:
        said = {name: value[:40] for name, value in self.headers.items()}
        return f"<{self.status} {said} {self.body[:300]!r}{' packed' if self.packed else ''}>"


def answers(statuses: list[int]) -> st.SearchStrategy[Reply]:
    """Answers of all kinds."""
    parts = st.tuples(st.sampled_from(statuses), st.sampled_from(HEADERS), BODIES, st.booleans())
    return parts.map(lambda drawn: Answer(*drawn))


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


@pytest.fixture(scope="module")
def peers(loop: LoopThread) -> Iterator[Peers]:
    made = Peers()
    made.endpoint()
    loop.run(made.start_engine())
    loop.run(made.start_worker())
    yield made
    loop.run(made.stop())


class _Everywhere(dict):
    """Answers every console call in the same way."""

    def __init__(self, say: Reply) -> None:
        self.say = say

    def get(self, *_: Any) -> Reply:
        return self.say


async def everything(peers: Peers, say: Reply) -> None:
    """Every kind of call, each answered so."""
    peers.console_replies = _Everywhere(say)
    async with _client(peers) as client:
        for call in (
            client.endpoints.list(),
            client.get_endpoint("llm"),
            client.workergroups.list(),
            client.endpoints.create("x"),
            client.endpoints.rotate_key(7),
            client.endpoints.advice(7),
            client.workergroups.update_workers(5),
            client.workergroups.logs(5),
        ):
            await _typed(call)
    peers.console_replies = {}
    async with _client(peers) as client:
        endpoint = await client.get_endpoint("llm")
        peers.console_replies = _Everywhere(say)
        for call in (endpoint.status(), endpoint.decisions(), endpoint.costs(), endpoint.workers()):
            await _typed(call)
        peers.console_replies = {}
        peers.route_replies.append(say)
        await _typed(endpoint.request("/v1/x", {"a": 1}, cost=1))
        peers.route_replies.clear()
        for call in (endpoint.request("/v1/x", {"a": 1}, cost=1), _streamed(endpoint)):
            peers.worker_replies.extend([say, say])
            await _typed(call)
            peers.worker_replies.clear()


def _client(peers: Peers) -> stoker.Serverless:
    return stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, timeout=5.0)


async def _streamed(endpoint: stoker.Endpoint) -> None:
    async with endpoint.stream("/v1/x", {"a": 1}, cost=1) as stream:
        async for _ in stream:
            pass


async def _typed(call: Awaitable[Any]) -> None:
    """It returns in time, or raises a documented error."""
    async with asyncio.timeout(30):
        with contextlib.suppress(stoker.StokerError):
            answered = await call
            if isinstance(answered, stoker.Answer):
                _ = answered.text, answered.json()


@examples(25, 1000)
@given(say=answers(FINAL + PASSING))
def test_whatever_is_answered_the_client_raises_its_own_errors(
    loop: LoopThread, peers: Peers, say: Reply
) -> None:
    loop.run(everything(peers, say))


async def test_an_answer_nested_without_end_is_a_malformed_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = b"[" * 100_000
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + body
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with stoker.Serverless(ACCOUNT_KEY, url=url, retry=QUICK, timeout=5.0) as made:
        with pytest.raises(stoker.MalformedAnswer):
            await made.endpoints.list()
    server.close()
    await server.wait_closed()


async def test_bytes_that_are_no_http_are_an_engine_that_is_away() -> None:
    """Endless heads, broken chunks, early ends: on a raw socket, which no HTTP library sends."""
    replies = [
        b"", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"HTTP/1.1 999 \xff\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ]  # fmt: skip
    current = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(current)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with stoker.Serverless(ACCOUNT_KEY, url=url, retry=QUICK, timeout=5.0) as made:
        for reply in replies:
            current = reply
            with pytest.raises(stoker.StokerError):
                await made.endpoints.list()
    server.close()
    await server.wait_closed()


COMMANDS = [
    ["endpoints", "list"], ["endpoints", "list", "--json"], ["endpoints", "show", "llm"], ["workers", "llm"], ["decisions", "llm"],
    ["costs", "llm"], ["logs", "llm"], ["workergroups", "list"], ["request", "llm", "/v1/x", "{}"], ["endpoints", "status", "llm"],
]  # fmt: skip


@examples(40, 1000)
@given(say=answers(FINAL), command=st.sampled_from(COMMANDS))
def test_whatever_is_answered_the_command_says_one_line(peers: Peers, say: Reply, command: list[str]) -> None:
    async def all_of_it(request: web.Request, body: Any) -> web.StreamResponse:
        found = request.path == "/api/v0/endptjobs/" and command[0] != "endpoints"
        if found:
            return web.json_response({"success": True, "results": [ENDPOINT]})
        return await say(request, body)

    peers.console_replies = _Everywhere(all_of_it)
    peers.route_replies.clear()
    peers.route_replies.append(say)
    environ = {"STOKER_URL": peers.url, "STOKER_API_KEY": ACCOUNT_KEY, "STOKER_CONFIG": "/nonexistent"}
    done = CliRunner().invoke(app, command, env=environ)
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    assert "Traceback" not in done.output
    if done.exit_code:
        assert done.stderr.startswith(("stoker: ", "Usage")), done.output
