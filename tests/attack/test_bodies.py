"""Malformed bodies: every path of every server answers them with a client error."""

import asyncio
import json
import time

import msgspec
import pytest
from aiohttp import web

from engine.api.parsing import json_object, parse, parse_route
from engine.api.request_buffer import BufferedBody
from engine.app import create_parts
from engine.settings import EngineSettings
from hosts import HostMarketSettings, create_app
from stoker_wire.http1.request import Request
from stoker_wire.parsing.strict_json import parse_json
from stoker_wire.route import RouteRequest
from tests.attack.conftest import KEY, SERVERS, SIGNING_KEY, answers_in, problem_in

DEEP = b"[" * 1000 + b"]" * 1000
HALF_DEEP = b"[" * 500 + b"]" * 500
BODIES = {
    "1,000 deep": b'{"endpoint":"x","cost":1,"z":' + DEEP + b"}",
    "500 deep": b'{"endpoint":"x","endpoint_name":"x","select_filters":' + HALF_DEEP + b',"search_params":' + HALF_DEEP + b"}",
    "deep without an end": b'{"z":' + b"[" * 200_000,
    "deep in objects": b'{"endpoint":"x","z":' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
    "5,000 digits": b'{"endpoint":"x","id":' + b"1" * 5000 + b"}",
    "a huge exponent": b'{"endpoint":"x","cost":1e999,"id":1e999}',
    "NaN": b'{"endpoint":"x","cost":NaN}',
    "Infinity": b'{"endpoint":"x","id":-Infinity}',
    "half a character": b'{"endpoint":"\\ud800","endpoint_name":"\\ud800"}',
    "half a character as a key": b'{"\\ud800":1}',
    "not UTF-8": b'{"endpoint":"\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"endpoint":"x"}',
    "UTF-16": '{"endpoint":"x"}'.encode("utf-16"),
    "a list": b"[]",
    "a number": b"1",
    "a null byte": b'{"endpoint":"x\x00"}',
}  # fmt: skip
DEEP_CASES = {"1,000 deep", "deep without an end", "deep in objects"}


def paths(app: web.Application) -> list[tuple[str, str]]:
    """Method and path of every route with a body."""
    found = set()
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        for name, value in {"id": "7", "endpoint": "llm", "path": "completions", "token": "t"}.items():
            path = path.replace("{" + name + "}", value)
        if route.method in {"POST", "PUT", "DELETE", "PATCH"} and "{" not in path:
            found.add((route.method, path))
    return sorted(found)


def routes_of(name, tmp_path):
    if name == "market":
        return paths(create_app(HostMarketSettings(state_dir=tmp_path / "m", api_keys=(KEY,)), gpus=list))
    settings = EngineSettings(
        accounts={"alice": KEY}, secret=b"a secret of the tests, 32 bytes!", rsa_private_key_pem=SIGNING_KEY
    )
    return paths(create_parts(settings, None).app)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("name", ["engine", "market"])
async def test_no_body_makes_a_fault_of_the_server(target, tmp_path, name, keyed):
    server = await target(name, body_bytes_max=1_000_000)
    routes = routes_of(name, tmp_path)
    assert len(routes) > 8
    wrong = {}
    for method, path in routes:
        for case, body in BODIES.items():
            key = f"Authorization: Bearer {KEY}\r\n" if keyed else ""
            head = f"{method} {path} HTTP/1.1\r\nHost: w\r\n{key}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            answer = await server.say(head.encode() + body)
            status = int(answer[9:12]) if answer else 0
            expected = {400} if path == "/route/" and case in DEEP_CASES else set(range(200, 500)) | {503}
            if status not in expected:
                wrong[method, path, case] = answer[-300:]
    assert wrong == {}
    assert await server.serves()


@pytest.mark.parametrize("size", [2**63, 2**63 - 1, 2**62, 2**32])
@pytest.mark.parametrize("name", SERVERS)
async def test_a_body_that_is_declared_too_large_is_refused_before_it_comes(target, name, size):
    server = await target(name)
    began = time.monotonic()
    answer = await server.say(server.head(f"Content-Length: {size}", "") + b"{")
    assert problem_in(answer) == (413, "body_too_large")
    assert time.monotonic() - began < 10  # of the 30 s that a body has
    assert await server.serves()


@pytest.mark.parametrize("path", ["/healthz", "/route/", "/openai/llm/v1/completions", "/worker_status/"])
async def test_every_path_of_the_engine_refuses_a_declared_size_at_once(target, path):
    server = await target("engine")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {2**63}\r\n\r\n"
    )
    async with asyncio.timeout(10):
        assert problem_in(await server.say(head.encode())) == (413, "body_too_large")


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: http://elsewhere", "Origin: http://w"),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"),
        ("Content-Encoding: gzip", "Content-Encoding: identity"),
    ],
)
@pytest.mark.parametrize("path", ["/route/", "/api/v0/bundles/"])
async def test_two_fields_that_the_engine_checks_are_refused(target, path, fields):
    server = await target("engine")
    server.body_path = path
    answer = await server.say(server.head(*fields, "Content-Length: 2", "") + b"{}")
    assert problem_in(answer) == (400, "header_repeated")


@pytest.mark.parametrize("name", ["engine", "market"])
async def test_two_keys_are_refused(target, name):
    server = await target(name)
    answer = await server.say(server.head("Authorization: Bearer other", "Content-Length: 2", "") + b"{}")
    assert answers_in(answer) == 1
    assert problem_in(answer) == (400, "header_repeated")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["msg"].startswith("a request has one Authorization")


@pytest.mark.parametrize("name", SERVERS)
async def test_a_request_without_a_version_is_refused(target, name):
    """HTTP/0.9 has no header fields: neither Host nor Origin can be checked."""
    server = await target(name)
    answer = await server.say(b"GET /healthz\r\n\r\n")
    assert answer[9:12] == b"505", answer


DUPLICATE = b'{"endpoint":"first","cost":1,"endpoint":"llm","cost":2}'


@pytest.mark.parametrize(
    "read",
    [
        parse_json,
        json_object,
        lambda body: vars(parse(RouteRequest, body)),
        lambda body: msgspec.structs.asdict(parse_route(body)),
        msgspec.json.decode,  # the worker's envelope
        json.loads,
    ],
    ids=["market", "engine", "route, slow", "route, fast", "worker", "python"],
)
def test_every_reader_takes_the_last_value_of_a_duplicate_key(read):
    """Readers that disagree would let a check and an effect see different values."""
    found = read(DUPLICATE)
    assert (found["endpoint"], found["cost"]) == ("llm", 2)


async def test_the_cost_of_a_call_with_a_duplicate_key_is_the_one_that_the_model_gets():
    body = BufferedBody(Request())
    body.is_json, body._data = True, b'{"model":"other","max_tokens":1,"model":"llm","max_tokens":9}'
    assert json.loads(body.rename_model("llm", "tiny")) == {"model": "tiny", "max_tokens": 9}
