"""Real llama.cpp behind its preset: cold start, stream, crash, drain and wake, and a wrong model path."""

import pytest

from tests.models.lifecycle import (
    CHAT,
    SECONDS_MAX,
    chat,
    crash,
    deploy,
    drains,
    has_gone_cold,
    model_processes,
    text_of,
)
from tests.system.conftest import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


async def test_a_real_model_starts_streams_crashes_sleeps_and_wakes(make_stack, llama, tmp_path):
    _, client = await make_stack(smollm2=llama)
    endpoint = await deploy(client, "smollm2", "smollm2", max_workers=1)

    assert await text_of(endpoint, 12)

    (pid,) = model_processes(tmp_path)
    await crash(tmp_path, pid)
    answer = await endpoint.request(CHAT, chat(4), cost=20, timeout=SECONDS_MAX)
    assert answer.json()["model"] == "smollm2"

    await has_gone_cold(client, endpoint, tmp_path)
    assert (await endpoint.request(CHAT, chat(4), cost=20, timeout=SECONDS_MAX)).json()["choices"]
    assert await drains(client, endpoint, tmp_path, 24)


async def test_a_wrong_model_path_is_named_within_seconds(make_stack, llama):
    _, client = await make_stack(wrong=llama | {"MODEL_NAME": "/models/nope.gguf"})
    endpoint = await deploy(client, "wrong", "wrong", max_workers=1)

    async def named():
        workers = await client.endpoints.workers(endpoint.id)
        lines = await client.endpoints.decisions(endpoint.id, tail=100)
        text = f"{workers} {[line['reason'] for line in lines]}"
        return "there is no such model: correct MODEL_NAME" in text

    await until(named, seconds_max=120, what="the cause in the endpoint's workers or decisions")
