"""The packages of Anthropic and Ollama through the engine and a real PyWorker: calls pass unchanged, keys stay here."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from stoker_wire.security.token import client_key_digest, mint_client_key
from tests.engine.api.model_server import MODEL, ModelServer, pyworker, run_client
from tests.engine.api.openai.test_openai_signs_of_life import quick  # noqa: F401
from tests.engine.conftest import EndpointDouble, Stage

# The first test may have to install the packages.
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("clients_installed")]

MESSAGES = [{"role": "user", "content": "hello"}]


async def speak(request: web.Request) -> web.StreamResponse:
    """Answer as a server of both dialects does."""
    payload = json.loads(await request.read())
    if request.path == "/api/chat":
        return await _ollama(request, payload)
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": payload["model"],
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    if not payload.get("stream"):
        return web.json_response(message)
    delta = {"type": "text_delta", "text": "hello"}
    block = {"type": "text", "text": ""}
    events = [
        {"type": "message_start", "message": message | {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return response


async def _ollama(request: web.Request, payload: dict) -> web.StreamResponse:
    def line(text: str, done: bool) -> dict:
        return {"model": payload["model"], "message": {"role": "assistant", "content": text}, "done": done}

    if payload.get("stream") is False:
        return web.json_response(line("hello", True))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for text, done in (("hel", False), ("lo", True)):
        await response.write(json.dumps(line(text, done)).encode() + b"\n")
    return response


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(stage: Stage) -> EndpointDouble:
    return await stage.endpoint()


@pytest_asyncio.fixture(loop_scope="session")
async def model(stage: Stage, endpoint: EndpointDouble, tmp_path: Path) -> AsyncIterator[ModelServer]:
    model = ModelServer()
    model.answer = speak
    async with pyworker(stage, endpoint, model, tmp_path / "worker"):
        yield model


def scripts(stage: Stage, endpoint: EndpointDouble, key: str) -> str:
    """A client of each package, as its documentation makes it."""
    url = f"{stage.server.url}/openai/{endpoint.name}"
    return f"""
import anthropic, ollama
MODEL, MESSAGES = {MODEL!r}, {MESSAGES!r}
claude = anthropic.Anthropic(base_url={url!r}, api_key={key!r}, max_retries=1, timeout=60)
llama = ollama.Client(host={url!r}, headers={{"Authorization": "Bearer {key}"}}, timeout=60)
"""


CALLS = """
with claude.messages.stream(model=MODEL, max_tokens=9, messages=MESSAGES) as stream:
    streamed = "".join(stream.text_stream)
show({
    "anthropic": claude.messages.create(model=MODEL, max_tokens=9, messages=MESSAGES).content[0].text,
    "anthropic stream": streamed,
    "ollama": llama.chat(model=MODEL, messages=MESSAGES).message.content,
    "ollama stream": "".join(part.message.content for part in llama.chat(model=MODEL, messages=MESSAGES, stream=True)),
})
"""
ALL = dict.fromkeys(("anthropic", "anthropic stream", "ollama", "ollama stream"), "hello")


async def test_both_packages_work_and_the_model_never_sees_the_key(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    assert await run_client(stage, endpoint, scripts(stage, endpoint, endpoint.key) + CALLS) == ALL
    versions = [request for request in model.requests if "anthropic-version" in request.headers]
    assert len(versions) == 2, "the version of the API goes to the model"
    for request in model.requests:
        assert endpoint.key not in str(request.headers)
        assert "x-api-key" not in request.headers


async def test_the_endpoints_name_is_an_alias_of_the_model(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    script = scripts(stage, endpoint, endpoint.key) + f"MODEL = {endpoint.name!r}\n" + CALLS
    assert await run_client(stage, endpoint, script) == ALL


async def test_errors_of_the_engine_are_read_by_both_packages(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    key = mint_client_key(endpoint.id, b"\2" * 20)
    today = int(time.time() // 86_400)
    used_up = {"n": "app", "h": client_key_digest(key), "b": 1.0, "s": 1.0, "d": today}
    script = """
said = []
try:
    claude.messages.create(model=MODEL, max_tokens=9, messages=MESSAGES)
except anthropic.APIStatusError as fault:
    said.append([type(fault).__name__, fault.body["type"], fault.body["error"]["code"]])
try:
    llama.chat(model=MODEL, messages=MESSAGES)
except ollama.ResponseError as fault:
    said.append([fault.status_code, fault.error])
show(said)
"""
    refused = await run_client(stage, endpoint, scripts(stage, endpoint, "sk-wrong") + script)
    assert refused[0] == ["AuthenticationError", "error", "auth_error"]
    assert refused[1][0] == 401
    assert refused[1][1].startswith("Authentication failed")
    await endpoint.script(keys=[used_up])
    refused = await run_client(stage, endpoint, scripts(stage, endpoint, key) + script)
    assert refused[0] == ["RateLimitError", "error", "key_dollars_per_day"]
    assert refused[1][0] == 429
    assert "00:00 UTC" in refused[1][1]
    assert model.requests == []


async def test_streams_that_wait_are_read_by_both_packages(
    stage: Stage,
    endpoint: EndpointDouble,
    quick: None,  # noqa: F811
    tmp_path: Path,
) -> None:
    await endpoint.script(groups=[1], wait_code="booting", wait_reason="1 worker boots", wait_until=4e9)
    call = asyncio.ensure_future(run_client(stage, endpoint, scripts(stage, endpoint, endpoint.key) + CALLS))
    await endpoint.lined_up(1)
    model = ModelServer()
    model.answer = speak
    async with pyworker(stage, endpoint, model, tmp_path / "worker"):
        assert (await call)["anthropic stream"] == "hello"
    await endpoint.script(members=[])
    llama = (
        "show(''.join(p.message.content for p in llama.chat(model=MODEL, messages=MESSAGES, stream=True)))"
    )
    call = asyncio.ensure_future(run_client(stage, endpoint, scripts(stage, endpoint, endpoint.key) + llama))
    await endpoint.lined_up(1)
    model = ModelServer()
    model.answer = speak
    async with pyworker(stage, endpoint, model, tmp_path / "other", launch_id="b" * 12, instance_id=102):
        assert await call == "hello"


async def test_an_error_in_a_stream_that_waited_reaches_both_packages(
    stage: Stage,
    endpoint: EndpointDouble,
    quick: None,  # noqa: F811
    tmp_path: Path,
) -> None:
    script = """
said = []
try:
    for _ in claude.messages.create(model="none", max_tokens=9, messages=MESSAGES, stream=True):
        said.append("an event")
except anthropic.APIStatusError as fault:
    said.append("does not exist" in str(fault))
try:
    for _ in llama.chat(model="none", messages=MESSAGES, stream=True):
        said.append("a part")
except ollama.ResponseError as fault:
    said.append("does not exist" in str(fault))
show(said)
"""
    call = asyncio.ensure_future(run_client(stage, endpoint, scripts(stage, endpoint, endpoint.key) + script))
    await endpoint.lined_up(1)
    async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
        assert await call == [True, True]
