"""Real llama.cpp behind its preset: cold start, stream, crash, drain and wake, and a wrong model path."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from stoker_pyworker.model.server.process_group import MARK
from tests.system.conftest import QUICK, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROUTE = "/v1/chat/completions"
SECONDS = 300


def chat(tokens, **more):
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": "smollm2", "messages": messages, "max_tokens": tokens, **more}


async def deploy(client, name, template, **parameters):
    made = await client.endpoints.create(name, **(QUICK | {"max_queue_time": 60.0} | parameters))
    await client.workergroups.create(made.id, template_hash=template, search_params="num_gpus=1", gpu_ram=0.0)
    return await client.get_endpoint(name)


async def text_of(endpoint, tokens):
    pieces = []
    async with endpoint.stream(ROUTE, chat(tokens, stream=True), cost=tokens + 10, timeout=SECONDS) as stream:
        async for event in stream:
            if not event.done:
                pieces += [choice["delta"].get("content") or "" for choice in event.json()["choices"]]
    return "".join(pieces)


def model_processes(state):
    """The model servers of this deployment's instances."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes() if process.name.isdigit() else b""
        except OSError:
            continue
        if f"{MARK}=".encode() in variables and str(state).encode() in variables:
            found.append(int(process.name))
    return found


async def test_a_real_model_starts_streams_crashes_sleeps_and_wakes(make_stack, llama, tmp_path):
    _, client = await make_stack(smollm2=llama)
    endpoint = await deploy(client, "smollm2", "smollm2", max_workers=1)

    assert await text_of(endpoint, 12)

    (pid,) = model_processes(tmp_path)
    os.kill(pid, signal.SIGSEGV)
    await until(lambda: (left := model_processes(tmp_path)) and pid not in left, seconds_max=60)
    answer = await endpoint.request(ROUTE, chat(4), cost=20, timeout=SECONDS)
    assert answer.json()["model"] == "smollm2"

    async def cold():
        workers = await client.endpoints.workers(endpoint.id)
        return workers and {worker.status for worker in workers} == {"stopped"}

    await until(cold, seconds_max=120, what="the worker to go cold")
    assert model_processes(tmp_path) == []
    assert (await endpoint.request(ROUTE, chat(4), cost=20, timeout=SECONDS)).json()["choices"]


async def test_requests_of_a_draining_worker_end_whole(make_stack, llama, tmp_path):
    _, client = await make_stack(smollm2=llama)
    endpoint = await deploy(client, "smollm2", "smollm2", max_workers=1, inactivity_timeout=-1.0)
    await endpoint.request(ROUTE, chat(2), cost=20, timeout=SECONDS)
    running = asyncio.ensure_future(text_of(endpoint, 24))
    await asyncio.sleep(0.5)
    await client.endpoints.update(endpoint.id, endpoint_state="stopped")
    assert await running
    await until(lambda: not model_processes(tmp_path), seconds_max=120)


async def test_a_wrong_model_path_is_named_within_seconds(make_stack, llama):
    _, client = await make_stack(wrong=llama | {"MODEL_NAME": "/models/nope.gguf"})
    endpoint = await deploy(client, "wrong", "wrong", max_workers=1)

    async def named():
        workers = await client.endpoints.workers(endpoint.id)
        lines = await client.endpoints.decisions(endpoint.id, tail=100)
        text = f"{workers} {[line['reason'] for line in lines]}"
        return "there is no such model: correct MODEL_NAME" in text

    await until(named, seconds_max=120, what="the cause in the endpoint's workers or decisions")
