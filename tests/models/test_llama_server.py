"""Real llama-server through `stoker up`: cold start, streams, crash, drain, sleep and wake, and failed starts."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.models.test_llama_cpp import model_processes
from tests.system.conftest import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROUTE = "/v1/chat/completions"
SECONDS = 300


def chat(tokens, **more):
    return {
        "model": "x",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": tokens,
        **more,
    }


async def up(stack, *arguments):
    """Exit status and output of `stoker up`, run as a person would."""
    assert stack.keys is not None
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("stoker"),
        *("up", "llama-server", "--yes", "--wait", "600", *arguments),
        env=os.environ | {"STOKER_URL": stack.settings.engine.url, "STOKER_API_KEY": stack.keys.account_key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def text_of(endpoint, tokens):
    pieces = []
    async with endpoint.stream(ROUTE, chat(tokens, stream=True), cost=tokens + 60, timeout=SECONDS) as stream:
        async for event in stream:
            if not event.done:
                pieces += [choice["delta"].get("content") or "" for choice in event.json()["choices"]]
    return "".join(pieces)


@pytest.fixture
async def served(make_stack, llama_server, weights, tmp_path):
    """A deployment that serves SmolLM2 with two slots."""
    stack, client = await make_stack()
    status, output = await up(
        stack, "--model", weights, "--name", "llm", "--command", str(llama_server), "--context", "512",
        "--parallel", "2", "--max-workers", "1", "--inactivity-timeout", "5", "--", "--threads", "2",
    )  # fmt: skip
    assert status == 0, output
    return stack, client, await client.get_endpoint("llm"), output


async def test_it_starts_streams_crashes_sleeps_and_wakes(served, tmp_path):
    stack, client, endpoint, output = served
    assert f"export OPENAI_BASE_URL={stack.settings.engine.url}/openai/llm/v1" in output
    assert all(await asyncio.gather(text_of(endpoint, 8), text_of(endpoint, 8))), (
        "both slots at the same time"
    )

    (pid,) = model_processes(tmp_path)
    os.kill(pid, signal.SIGSEGV)
    await until(lambda: (left := model_processes(tmp_path)) and pid not in left, seconds_max=60)
    answer = await endpoint.request(ROUTE, chat(4), cost=100, timeout=SECONDS)
    assert answer.json()["choices"]

    async def cold():
        workers = await client.endpoints.workers(endpoint.id)
        return workers and {worker.status for worker in workers} == {"stopped"}

    await until(cold, seconds_max=180, what="the worker to go cold")
    assert model_processes(tmp_path) == []
    assert (await endpoint.request(ROUTE, chat(4), cost=100, timeout=SECONDS)).json()["choices"]

    running = asyncio.ensure_future(text_of(endpoint, 24))
    await until(lambda: model_processes(tmp_path), seconds_max=60)
    await asyncio.sleep(0.5)
    await client.endpoints.update(endpoint.id, endpoint_state="stopped")
    assert await running, "a draining worker finishes its stream"
    await until(lambda: not model_processes(tmp_path), seconds_max=180)


async def test_failed_starts_are_explained_by_up(make_stack, llama_server, weights, tmp_path):
    stack, _ = await make_stack()
    common = ("--command", str(llama_server), "--max-workers", "1")
    status, output = await up(stack, "--model", "/models/nope.gguf", "--name", "nope", *common)
    assert (status, "created" in output) == (2, False), output
    status, output = await up(
        stack, "--model", "/models/nope.gguf", "--name", "nope", "--gpu-ram", "0", *common
    )
    assert status == 1
    assert "there is no such model: correct MODEL_NAME" in output, output

    for name, limit, context, said in (
        ("weights", 200_000_000, 512, "the machine's memory (RAM) is too small for the weights"),
        ("cache", 800_000_000, 200_000, "the weights fit, but not the KV cache: lower MODEL_CONTEXT"),
    ):
        small = ("--command", f"prlimit --as={limit} {llama_server}", "--max-workers", "1", "--gpu-ram", "0")
        arguments = ("--model", weights, "--name", name, "--context", str(context), *small)
        status, output = await up(stack, *arguments, "--", "--threads", "1")
        assert status == 1
        assert said in output, output
