"""Real vLLM on a CPU through `stoker up`: cold start, streams, crashes, sleep and wake, drain, and failed starts."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.models import hub
from tests.models.conftest import MODELS, program
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

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
SMALL = ("--enforce-eager", "--gpu-memory-utilization", "0.1")
"""No compilation, and a tenth of the machine's memory."""


@pytest.fixture(scope="module")
def llama():
    """A folder with a small Llama of random weights."""
    folder = MODELS / "vllm" / "tiny-llama"
    if not folder.exists():
        pytest.skip(f"{folder} is not made: run make test-models")
    return folder


async def up_vllm(stack, preset, model, *options, before="", server=(), variables=(), **environment):
    """Status and output of `stoker up`."""
    variables = ("VLLM_NO_USAGE_STATS=1", *variables)
    return await up(
        stack, preset, "--cpu", "--model", str(model), "--inactivity-timeout", "5", *options,
        *("--command", f"{before} {program('vllm', 'vllm')} serve".strip()),
        *(word for each in variables for word in ("-e", each)),
        *("--", *SMALL, *server),
        **environment,
    )  # fmt: skip


def pasted(output, first, stack, program):
    """What a block of the lines to paste prints."""
    block = output.split(f"# {first}\n", 1)[1].split("\n\n", 1)[0]
    environment = {"STOKER_API_KEY": stack.keys.account_key, "STOKER_URL": stack.settings.engine.url}
    done = subprocess.run(
        [*program, block],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


async def test_it_starts_streams_crashes_sleeps_and_wakes(make_stack, llama, tmp_path):
    stack, client = await make_stack()
    status, output = await up_vllm(
        stack, "vllm", llama, "--name", "tiny", "--context", "512", "--parallel", "4"
    )
    assert status == 0, output
    assert "loads the model" in output
    answer = await asyncio.to_thread(pasted, output, "curl", stack, ("bash", "-c"))
    assert json.loads(answer)["choices"]
    answer = await asyncio.to_thread(
        pasted, output, "Python, after: pip install stoker", stack, (sys.executable, "-c")
    )
    assert "'choices': [{" in answer
    endpoint, model = await client.get_endpoint("tiny"), str(llama)
    assert all(await asyncio.gather(*(text_of(endpoint, 16, model=model, ignore_eos=True) for _ in range(6))))

    for at, number in (
        (0, signal.SIGKILL),
        (-1, signal.SIGSEGV),
    ):  # the HTTP server, then a process that computes
        await crash(tmp_path, model_processes(tmp_path)[at], number)
        answer = await endpoint.request(CHAT, chat(4, model), cost=100, timeout=SECONDS_MAX)
        assert answer.json()["usage"]["completion_tokens"] <= 4

    await has_gone_cold(client, endpoint, tmp_path)
    answer = await endpoint.request(CHAT, chat(4, model), cost=100, timeout=SECONDS_MAX)
    assert answer.json()["choices"]
    assert await drains(client, endpoint, tmp_path, 400, model=model, ignore_eos=True)


async def test_weights_are_downloaded_from_a_hub_once(make_stack, llama, tmp_path):
    with hub.serving({"tiny/llama": llama}) as (address, asked):
        stack, client = await make_stack()
        status, output = await up_vllm(
            stack, "vllm", "tiny/llama", "--context", "512",
            variables=(f"HF_ENDPOINT={address}", f"HF_HOME={tmp_path / 'cache'}"), HF_ENDPOINT=address,
        )  # fmt: skip
        assert status == 0, output
        assert "model      tiny/llama: llama, " in output
        endpoint = await client.get_endpoint("llama")
        await has_gone_cold(client, endpoint, tmp_path)
        assert await text_of(endpoint, 4, model="tiny/llama", ignore_eos=True), "the worker wakes"
    assert sum(path.endswith("/model.safetensors") for path in asked) == 1


SMALL_DISK = """unshare -rm sh -c 'mount -t tmpfs -o size=20m none "$HF_HOME" && exec "$@"' sh"""
FAILURES = {
    "repository": ({"model": "tiny/nope"}, "there is no such model: correct MODEL_NAME"),
    "licence": ({"model": "gated/llama"}, "the repository is gated: accept its licence"),
    "disk": ({"model": "tiny/llama", "before": SMALL_DISK}, "the disk is full"),
    "memory": ({"before": "prlimit --data=1500000000"}, "the machine's memory (RAM) is too small"),
    "cache": ({"server": ["--kv-cache-memory-bytes", "1000000"]}, "the weights fit, but not the KV cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failed_start_is_explained_by_up(name, make_stack, llama, tmp_path):
    given, said = FAILURES[name]
    cache = tmp_path / "cache"
    cache.mkdir()
    with hub.serving({"tiny/llama": llama}) as (address, _):
        stack, _ = await make_stack()
        given = {"model": llama, "variables": (f"HF_ENDPOINT={address}", f"HF_HOME={cache}")} | given
        status, output = await up_vllm(
            stack, "vllm", given.pop("model"), "--gpu-ram", "0", "--name", name, **given
        )
    assert status == 1, output
    assert said in output, output
