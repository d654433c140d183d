"""While a request waits, proxies between client and engine see bytes, and the client sees why it waits."""

import asyncio
import json
from pathlib import Path

import pytest

from engine.settings import Timing
from tests.engine.api.model_server import MODEL, ModelServer, pyworker, run_client
from tests.engine.api.openai.test_openai import path
from tests.engine.conftest import EndpointDouble, Stage

CHAT = {"model": MODEL, "messages": [], "stream": True}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("clients_installed")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.proxy.client_answer.FIRST_SIGN_SECONDS", 0.05)
    monkeypatch.setattr("engine.proxy.client_answer.SIGN_SECONDS", 0.05)


def url(stage: Stage, endpoint: EndpointDouble) -> str:
    return stage.server.url + path(endpoint, "chat/completions")


async def test_a_stream_gets_comments_with_the_reason_and_then_the_answer(
    stage: Stage, quick: None, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    await endpoint.script(groups=[1], wait_code="booting", wait_reason="1 worker boots", wait_until=4e9)
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with stage.http.post(url(stage, endpoint), json=CHAT, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        for _ in range(2):
            comment = (await response.content.readuntil(b"\n\n")).decode()
            assert comment.startswith(": waiting: 1 worker boots; expected in ")
            assert "(booting)" in comment
        async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
            rest = (await response.content.read()).decode()
    events = [line for line in rest.splitlines() if line.startswith("data: ")]
    assert [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events[:2]] == ["hel", "lo"]
    assert events[2:] == ["data: [DONE]"]


async def test_the_package_reads_a_stream_that_waited_and_an_error_in_it(
    stage: Stage, quick: None, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    script = """
said = []
for name in ("Qwen/Qwen3-8B", "none"):
    try:
        stream = client.chat.completions.create(model=name, messages=[], stream=True)
        said.append("".join(chunk.choices[0].delta.content for chunk in stream))
    except openai.APIError as fault:
        said.append(fault.message)
show(said)
"""
    call = asyncio.ensure_future(run_client(stage, endpoint, script))
    await endpoint.lined_up(1)
    async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
        first, second = await call
    assert first == "hello"
    assert "The model `none` does not exist." in second


async def test_a_wait_that_ends_without_a_worker_is_an_error_in_the_stream(
    bare_stage: Stage, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.api.openai_queue.WAIT_SECONDS_MAX", 0.3)
    await bare_stage.start_engine(timing=Timing(watch_seconds=0.05, hold_seconds=0.3))
    endpoint = await bare_stage.endpoint()
    await endpoint.script(groups=[1], wait_code="no_capacity", wait_reason="no offer fits", wait_until=4e9)
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with bare_stage.http.post(url(bare_stage, endpoint), json=CHAT, headers=headers) as response:
        body = (await response.content.read()).decode()
    (event,) = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
    error = json.loads(event)["error"]
    assert error["code"] == "no_worker"
    assert "no offer fits (no_capacity); expected in " in error["message"]


async def test_a_call_without_a_stream_gets_spaces_if_it_asks_for_them(
    stage: Stage, quick: None, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    headers = {"Authorization": f"Bearer {endpoint.key}", "X-Stoker-Keep-Alive": "spaces"}
    payload = CHAT | {"stream": False}
    async with stage.http.post(url(stage, endpoint), json=payload, headers=headers) as response:
        assert await response.content.readexactly(3) == b"   "
        async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
            answer = json.loads(await response.content.read())
    assert answer["choices"][0]["message"]["content"] == "hello"
