"""Parameters, weights and KV cache of public models, compared with what their pages and servers publish."""

import pytest

from stoker.preflight.memory import GIB, memory_need
from stoker.preflight.model_config import read_shape

LLAMA = {"model_type": "llama", "torch_dtype": "bfloat16", "tie_word_embeddings": False}
QWEN2 = {"model_type": "qwen2", "torch_dtype": "bfloat16", "tie_word_embeddings": False}


def config(hidden, layers, heads, kv_heads, width, vocabulary, **more):
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": width,
        "vocab_size": vocabulary,
        **more,
    }


# Values of each repository's config.json, and the parameters that its page on huggingface.co shows ("Model size";
# /api/models/<name>, field safetensors.total).
PUBLISHED = {
    "meta-llama/Llama-3.1-8B": (config(4096, 32, 32, 8, 14336, 128256, **LLAMA), 8_030_261_248),
    "meta-llama/Llama-3.1-70B": (config(8192, 80, 64, 8, 28672, 128256, **LLAMA), 70_553_706_496),
    "meta-llama/Llama-3.2-1B": (
        config(2048, 16, 32, 8, 8192, 128256, **LLAMA | {"tie_word_embeddings": True, "head_dim": 64}),
        1_235_814_400,
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (config(2048, 22, 32, 4, 5632, 32000, **LLAMA), 1_100_048_384),
    "HuggingFaceTB/SmolLM2-135M": (
        config(576, 30, 9, 3, 1536, 49152, **LLAMA | {"tie_word_embeddings": True}),
        134_515_008,
    ),
    "mistralai/Mistral-7B-v0.1": (
        config(4096, 32, 32, 8, 14336, 32000, **LLAMA | {"model_type": "mistral"}),
        7_241_732_096,
    ),
    "mistralai/Mixtral-8x7B-v0.1": (
        config(4096, 32, 32, 8, 14336, 32000, **LLAMA | {"model_type": "mixtral", "num_local_experts": 8}),
        46_702_792_704,
    ),
    "microsoft/Phi-3-mini-4k-instruct": (
        config(3072, 32, 32, 32, 8192, 32064, **LLAMA | {"model_type": "phi3"}),
        3_821_079_552,
    ),
    "Qwen/Qwen2.5-0.5B": (
        config(896, 24, 14, 2, 4864, 151936, **QWEN2 | {"tie_word_embeddings": True}),
        494_032_768,
    ),
    "Qwen/Qwen2.5-7B": (config(3584, 28, 28, 4, 18944, 152064, **QWEN2), 7_615_616_512),
    "Qwen/Qwen2.5-72B": (config(8192, 80, 64, 8, 29568, 152064, **QWEN2), 72_706_203_648),
    "Qwen/Qwen3-30B-A3B": (
        config(
            2048,
            48,
            32,
            4,
            6144,
            151936,
            model_type="qwen3_moe",
            head_dim=128,
            num_experts=128,
            moe_intermediate_size=768,
            torch_dtype="bfloat16",
            tie_word_embeddings=False,
        ),
        30_532_122_624,
    ),
    "google/gemma-2-9b": (
        config(3584, 42, 16, 8, 14336, 256000, model_type="gemma2", head_dim=256, torch_dtype="bfloat16"),
        9_241_705_984,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": (
        config(
            384, 6, 12, 12, 1536, 30522, model_type="bert", max_position_embeddings=512, torch_dtype="float32"
        ),
        22_713_216,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_counted_parameters_are_the_published_ones(name):
    given, parameters = PUBLISHED[name]
    assert read_shape(given).parameters == parameters


def test_the_weights_of_llama_8b_are_what_vllm_logs():
    """vLLM logs "Loading model weights took 14.9595 GB" for Llama-3-8B (vllm-project/vllm#12330)."""
    weights = read_shape(PUBLISHED["meta-llama/Llama-3.1-8B"][0]).weights_bytes
    assert weights / GIB == pytest.approx(14.9595, abs=0.01)


def test_the_kv_cache_of_llama_8b_is_what_vllm_allocates():
    """In the same log 11.12 GiB hold 5691 blocks of 16 tokens."""
    shape = read_shape(PUBLISHED["meta-llama/Llama-3.1-8B"][0])
    need = memory_need(shape, weights_bytes=shape.weights_bytes, context=5691 * 16)
    assert need.kv_per_request / GIB == pytest.approx(11.12, abs=0.01)


def test_the_kv_cache_is_split_over_gpus_and_copied_where_there_are_fewer_heads():
    shape = read_shape(PUBLISHED["Qwen/Qwen2.5-7B"][0])  # 4 KV heads
    one, four, eight = (
        memory_need(shape, weights_bytes=shape.weights_bytes, context=8192, gpus=gpus) for gpus in (1, 4, 8)
    )
    assert four.kv_per_request == one.kv_per_request / 4
    assert eight.kv_per_request == four.kv_per_request


@pytest.mark.parametrize(
    ("quantization", "gib"),
    [
        # Published files: hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4, 5.74 GB;
        # neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8, 9.08 GB
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 5.74e9 / GIB),
        ({"quant_method": "fp8"}, 9.08e9 / GIB),
    ],
)
def test_quantised_weights_are_within_three_percent_of_the_published_files(quantization, gib):
    given = PUBLISHED["meta-llama/Llama-3.1-8B"][0] | {"quantization_config": quantization}
    assert read_shape(given).weights_bytes / GIB == pytest.approx(gib, rel=0.03)


def test_latent_attention_caches_one_vector_per_layer():
    """DeepSeek-V3: 61 layers of 512 + 64 numbers, 70,272 bytes a token in 16 bits (arXiv 2412.19437, section 2.1.1)."""
    given = config(
        7168, 61, 128, 128, 18432, 129280, model_type="deepseek_v3", kv_lora_rank=512, qk_rope_head_dim=64
    )
    shape = read_shape(given)
    assert shape.kv_values_per_token * 2 == 70_272
    assert shape.parameters is None


def test_a_config_without_layers_is_refused():
    with pytest.raises(ValueError, match="num_hidden_layers"):
        read_shape({"model_type": "llama"})


def test_a_70b_model_does_not_fit_a_24_gb_card_and_an_8b_model_does():
    large, small = (read_shape(PUBLISHED[f"meta-llama/Llama-3.1-{size}"][0]) for size in ("70B", "8B"))
    rtx_4090_mib = 24_564
    need = memory_need(large, weights_bytes=large.weights_bytes, context=8192)
    assert need.gpu_ram > rtx_4090_mib / 1000
    assert need.requests_on(rtx_4090_mib) == 0
    need = memory_need(small, weights_bytes=small.weights_bytes, context=8192)
    assert need.gpu_ram < rtx_4090_mib / 1000
    assert need.requests_on(rtx_4090_mib) >= 1
