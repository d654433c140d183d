"""OpenAI's own Python package against the engine, a real PyWorker and a model server that checks names."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from tests.engine.api.model_server import MODEL, SPEECH, ModelServer, pyworker, run_client
from tests.engine.conftest import EndpointDouble, Stage

# The first test may have to install the package.
pytestmark = pytest.mark.timeout(300)

MESSAGES = "[{'role': 'user', 'content': 'hello'}]"
CHAT = f"client.chat.completions.create(model='{MODEL}', messages={MESSAGES}, max_tokens=%s)"


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(stage: Stage) -> EndpointDouble:
    return await stage.endpoint()


@pytest_asyncio.fixture(loop_scope="session")
async def model(stage: Stage, endpoint: EndpointDouble, tmp_path: Path) -> AsyncIterator[ModelServer]:
    model = ModelServer()
    async with pyworker(stage, endpoint, model, tmp_path / "worker"):
        yield model


async def test_every_call_of_the_package_works_unchanged(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    shown = await run_client(
        stage,
        endpoint,
        f"""
name = client.models.list().data[0].id
audio = b"x" * (25 * 1024 * 1024)
show({{
    "models": [model.id for model in client.models.list()],
    "retrieved": client.models.retrieve(name).id,
    "chat": {CHAT % 4000}.choices[0].message.content,
    "alias": client.chat.completions.create(model={endpoint.name!r}, messages={MESSAGES}).model,
    "stream": "".join(chunk.choices[0].delta.content for chunk in
        client.chat.completions.create(model=name, messages={MESSAGES}, stream=True)),
    "embeddings": client.embeddings.create(model=name, input="x", encoding_format="float").data[0].embedding,
    "transcription": client.audio.transcriptions.create(model={endpoint.name!r}, file=("a.mp3", audio)).text,
    "speech": client.audio.speech.create(model=name, voice="a", input="x").content.hex(),
    "image": client.images.generate(model=name, prompt="x").data[0].b64_json,
    "moderation": client.moderations.create(model=name, input="x").id,
}})
""",
    )
    assert shown == {
        "models": [MODEL],
        "retrieved": MODEL,
        "chat": "hello",
        "alias": MODEL,
        "stream": "hello",
        "embeddings": [0.5, 0.25],
        "transcription": f"{25 * 1024 * 1024} bytes",
        "speech": SPEECH.hex(),
        "image": "aGk=",
        "moderation": "m",
    }


async def test_errors_are_read_by_the_package(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    async def limit(request: web.Request) -> web.StreamResponse:
        error = {"message": "slow down", "type": "rate_limit", "code": "rate_limited", "param": None}
        return web.json_response({"error": error}, status=429, headers={"Retry-After": "17"})

    model.answer = limit
    shown = await run_client(
        stage,
        endpoint,
        f"""
said = {{}}
try:
    {CHAT % 10}
except openai.RateLimitError as fault:
    said["limit"] = [fault.code, fault.response.headers["retry-after"], fault.message]
try:
    client.models.retrieve("gpt-none")
except openai.NotFoundError as fault:
    said["model"] = [fault.code, fault.type]
try:
    client.files.list()
except openai.NotFoundError as fault:
    said["path"] = [fault.code, "/v1/chat/completions" in fault.message]
try:
    client.with_options(api_key="sk-wrong").models.list()
except openai.AuthenticationError as fault:
    said["key"] = [fault.code, fault.type]
show(said)
""",
    )
    assert shown["limit"][:2] == ["rate_limited", "17"]
    assert "slow down" in shown["limit"][2]
    assert shown["model"] == ["model_not_found", "not_found_error"]
    assert shown["path"] == ["not_found", True]
    assert shown["key"] == ["auth_error", "authentication_error"]
    assert len(model.requests) == 1, "a 429 of the model is not run again"
