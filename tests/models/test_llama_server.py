"""Real llama-server through `stoker up`: cold start, streams, crash, sleep and wake, drain, and failed starts."""

import asyncio

import pytest

from tests.models.conftest import program
from tests.models.lifecycle import (
    CHAT,
    SECONDS_MAX,
    chat,
    crash,
    drains,
    has_gone_cold,
    model_processes,
    text_of,
    up,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def llama_server():
    return program("llama", "llama-server")


async def test_it_starts_streams_crashes_sleeps_and_wakes(make_stack, llama_server, weights, tmp_path):
    stack, client = await make_stack()
    status, output = await up(
        stack, "llama-server", "--model", weights, "--name", "llm", "--command", str(llama_server), "--context",
        "512", "--parallel", "2", "--inactivity-timeout", "5", "--", "--threads", "2",
    )  # fmt: skip
    assert status == 0, output
    endpoint = await client.get_endpoint("llm")
    assert f"export OPENAI_BASE_URL={stack.settings.engine.url}/openai/llm/v1" in output
    assert all(await asyncio.gather(text_of(endpoint, 8), text_of(endpoint, 8))), (
        "both slots at the same time"
    )

    (pid,) = model_processes(tmp_path)
    await crash(tmp_path, pid)
    answer = await endpoint.request(CHAT, chat(4), cost=100, timeout=SECONDS_MAX)
    assert answer.json()["choices"]

    await has_gone_cold(client, endpoint, tmp_path)
    assert (await endpoint.request(CHAT, chat(4), cost=100, timeout=SECONDS_MAX)).json()["choices"]
    assert await drains(client, endpoint, tmp_path, 24)


async def test_failed_starts_are_explained_by_up(make_stack, llama_server, weights):
    stack, _ = await make_stack()
    nope = ("--model", "/models/nope.gguf", "--name", "nope", "--command", str(llama_server))
    status, output = await up(stack, "llama-server", *nope)
    assert (status, "created" in output) == (2, False), output
    status, output = await up(stack, "llama-server", *nope, "--gpu-ram", "0")
    assert status == 1
    assert "there is no such model: correct MODEL_NAME" in output, output

    for name, limit, context, said in (
        ("weights", 200_000_000, 512, "the machine's memory (RAM) is too small for the weights"),
        ("cache", 800_000_000, 200_000, "the weights fit, but not the KV cache: lower MODEL_CONTEXT"),
    ):
        small = ("--command", f"prlimit --as={limit} {llama_server}", "--gpu-ram", "0")
        arguments = ("--model", weights, "--name", name, "--context", str(context), *small)
        status, output = await up(stack, "llama-server", *arguments, "--", "--threads", "1")
        assert status == 1
        assert said in output, output
