"""What every real server goes through: cold start by `stoker up`, crash, sleep, wake, drain."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from stoker_pyworker.model.server import process_group
from tests.system.conftest import QUICK, until

CHAT = "/v1/chat/completions"
SECONDS_MAX = 600


def chat(tokens, model="smollm2", **more):
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": model, "messages": messages, "max_tokens": tokens, **more}


async def up(stack, preset, *arguments, **variables):
    """Exit status and output of `stoker up`, run as a person would."""
    assert stack.keys is not None
    key = {"STOKER_URL": stack.settings.engine.url, "STOKER_API_KEY": stack.keys.account_key}
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("stoker"),
        *("up", preset, "--yes", "--wait", str(SECONDS_MAX), "--max-workers", "1", *arguments),
        env=os.environ | key | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def text_of(endpoint, tokens, **more):
    """The text of a stream of chat."""
    pieces = []
    request = chat(tokens, stream=True, **more)
    async with endpoint.stream(CHAT, request, cost=tokens + 60, timeout=SECONDS_MAX) as stream:
        async for event in stream:
            pieces += [choice["delta"].get("content") or "" for choice in event.json()["choices"]]
    return "".join(pieces)


def model_processes(state):
    """The processes of model servers of this deployment's instances, the oldest first."""
    mark = f"{process_group.MARK}=".encode()
    found = {}
    for process in Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes() if process.name.isdigit() else b""
            if mark in variables and str(state).encode() in variables:
                found[int(process.name)] = os.getsid(int(process.name))
        except OSError:
            continue
    # Some set their title, which overwrites their variables.
    everyone = [int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit()]
    return sorted(pid for pid in everyone if pid in found or session_of(pid) in found.values())


def session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


async def crash(state, pid, number=signal.SIGSEGV):
    """One process of the server ends, the others follow, and the worker starts the server again."""
    before = set(model_processes(state))
    os.kill(pid, number)
    await until(lambda: (left := set(model_processes(state))) and not left & before, seconds_max=120)


async def has_gone_cold(client, endpoint, state):
    """The idle worker was stopped, and none of its processes is left."""

    async def cold():
        workers = await client.endpoints.workers(endpoint.id)
        return workers and {worker.status for worker in workers} == {"stopped"}

    await until(cold, seconds_max=180, what="the worker to go cold")
    assert model_processes(state) == []


async def drains(client, endpoint, state, tokens, **more):
    """A stream whose endpoint is stopped at its first event comes whole, and the server stops. Returns its text."""
    pieces = []
    request = chat(tokens, stream=True, **more)
    async with endpoint.stream(CHAT, request, cost=tokens + 60, timeout=SECONDS_MAX) as stream:
        async for event in stream:
            if not pieces:
                await client.endpoints.update(endpoint.id, endpoint_state="stopped")
            choice = event.json()["choices"][0]
            pieces.append(choice["delta"].get("content") or "")
    assert choice["finish_reason"], "the stream has its end"
    await until(lambda: not model_processes(state), seconds_max=180)
    return "".join(pieces)


async def deploy(client, name, template, **parameters):
    """An endpoint with a template of the marketplace."""
    made = await client.endpoints.create(name, **(QUICK | {"max_queue_time": 60.0} | parameters))
    await client.workergroups.create(made.id, template_hash=template, search_params="num_gpus=1", gpu_ram=0.0)
    return await client.get_endpoint(name)
