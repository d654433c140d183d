"""A model's size from its `config.json`, as Hugging Face repositories have it.

Parameters are counted from the layer shapes of the published reference implementations (`transformers`, one
`modeling_<model_type>.py` each). An unknown architecture has no count: the size of its weight files is needed then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker_wire.parsing.numbers import finite

_DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0, "int8": 1.0}
_SCALE_BITS = 20.0
"""Bits that one group of quantised weights adds: a 16-bit scale and a 4-bit zero point (GPTQ, AWQ)."""
_GROUP = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The shape of a decoder, as far as memory depends on it."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_values_per_token: float
    """Numbers that one token adds to the KV cache, all layers together."""
    kv_heads: int
    intermediate: int
    vocabulary: int
    context_max: int | None
    dtype_bytes: float = 2.0
    parameters: int | None = None
    """None: this architecture is unknown."""
    parameters_unquantised: int = 0
    """Embeddings and head, which quantisation leaves in 16 bits."""
    weight_bits: float | None = None
    """Bits of a quantised weight, with its share of the scales; None: not quantised."""

    @property
    def weights_bytes(self) -> float | None:
        """The size of the weights; None if the parameters are unknown."""
        if self.parameters is None:
            return None
        if self.weight_bits is None:
            return self.parameters * self.dtype_bytes
        quantised = self.parameters - self.parameters_unquantised
        return quantised * self.weight_bits / 8 + self.parameters_unquantised * 2.0


@dataclass(frozen=True, slots=True)
class _Family:
    """How a family's layer differs from Llama's."""

    qkv_bias: bool = False
    qk_norm: bool = False
    norms: int = 2


_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(),
    "mistral": _Family(),
    "mixtral": _Family(),
    "phi3": _Family(),
    "smollm3": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norm=True),
    "qwen3_moe": _Family(qk_norm=True),
    "gemma2": _Family(norms=4),
    "gemma3_text": _Family(norms=4, qk_norm=True),
}
_TIED = frozenset({"gemma2", "gemma3_text"})
"""Families whose head is the embedding unless the config says otherwise."""


class _Fields:
    """The numbers of a config."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def whole(self, *names: str, default: int = 0) -> int:
        for name in names:
            number = finite(self._config.get(name))
            if number is not None and number > 0:
                return int(number)
        return default


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of the model in a `config.json`; of a multimodal model, that of its language model.

    Raises:
        ValueError: the config has no layers or no width, so it describes no transformer.
    """
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and inner:
        outer = {
            name: config[name] for name in ("torch_dtype", "dtype", "quantization_config") if name in config
        }
        config = {**outer, **inner, "multimodal": True}
    fields = _Fields(config)
    family = str(config.get("model_type") or "")
    layers = fields.whole("num_hidden_layers", "n_layer", "num_layers")
    hidden = fields.whole("hidden_size", "n_embd", "d_model")
    if not layers or not hidden:
        raise ValueError("num_hidden_layers and hidden_size are expected")
    heads = fields.whole("num_attention_heads", "n_head", default=1)
    kv_heads = fields.whole("num_key_value_heads", default=heads)
    head_dim = fields.whole("head_dim", default=hidden // heads)
    latent = fields.whole("kv_lora_rank")
    if (
        latent
    ):  # multi-head latent attention (DeepSeek) caches one compressed vector and one rotary key per layer
        kv_values = float(layers * (latent + fields.whole("qk_rope_head_dim")))
        kv_heads = 1
    else:
        kv_values = 2.0 * layers * kv_heads * head_dim
    vocabulary = fields.whole("vocab_size")
    counted, unquantised = (None, 0) if config.get("multimodal") else _parameters(config, fields, family)
    return ModelShape(
        architecture=family or "unknown",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        kv_values_per_token=0.0 if family in _ENCODERS else kv_values,
        intermediate=fields.whole("intermediate_size", default=4 * hidden),
        vocabulary=vocabulary,
        context_max=fields.whole("max_position_embeddings", "n_positions") or None,
        dtype_bytes=_DTYPE_BYTES.get(str(config.get("torch_dtype") or config.get("dtype")), 2.0),
        parameters=counted,
        parameters_unquantised=unquantised,
        weight_bits=_weight_bits(config.get("quantization_config")),
    )


_ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "nomic_bert"})
"""Embedding models, which have no KV cache."""


def _parameters(config: Mapping[str, Any], fields: _Fields, family: str) -> tuple[int | None, int]:
    """All parameters, and those of embeddings and head; (None, 0) for an unknown architecture."""
    if family == "bert":
        return _bert_parameters(fields), 0
    known = _FAMILIES.get(family)
    if known is None:
        return None, 0
    hidden = fields.whole("hidden_size")
    heads = fields.whole("num_attention_heads", default=1)
    kv_heads = fields.whole("num_key_value_heads", default=heads)
    head_dim = fields.whole("head_dim", default=hidden // heads)
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    if known.qkv_bias or config.get("attention_bias") is True:
        attention += (heads + 2 * kv_heads) * head_dim
    if known.qk_norm:
        attention += 2 * head_dim
    experts = fields.whole("num_local_experts", "num_experts")
    width = fields.whole("intermediate_size")
    if experts:
        expert_width = fields.whole("moe_intermediate_size", default=width)
        mlp = (
            experts * 3 * hidden * expert_width + hidden * experts
        )  # gate, up and down of each expert; the router
    else:
        mlp = 3 * hidden * width
    layer = attention + mlp + known.norms * hidden
    embedding = fields.whole("vocab_size") * hidden
    tied = config.get("tie_word_embeddings", family in _TIED)
    outer = embedding if tied else 2 * embedding
    return fields.whole("num_hidden_layers") * layer + outer + hidden, outer


def _bert_parameters(fields: _Fields) -> int:
    hidden, width = fields.whole("hidden_size"), fields.whole("intermediate_size")
    table = fields.whole("vocab_size") + fields.whole("max_position_embeddings")
    embeddings = (table + fields.whole("type_vocab_size", default=2)) * hidden + 2 * hidden
    attention = 4 * (hidden * hidden + hidden) + 2 * hidden
    mlp = 2 * hidden * width + width + hidden + 2 * hidden
    return embeddings + fields.whole("num_hidden_layers") * (attention + mlp) + hidden * hidden + hidden


def _weight_bits(quantization: Any) -> float | None:
    """Bits per quantised weight of GPTQ, AWQ, FP8, bitsandbytes and compressed-tensors configs."""
    if not isinstance(quantization, Mapping):
        return None
    method = str(quantization.get("quant_method") or "").lower()
    if method in {"fp8", "fbgemm_fp8"}:
        return 8.0
    bits = finite(quantization.get("bits") or quantization.get("w_bit"))
    if bits is None and quantization.get("load_in_4bit") is True:
        bits = 4.0
    if bits is None and quantization.get("load_in_8bit") is True:
        return 8.0
    if bits is None:
        groups = quantization.get("config_groups")
        first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
        weights = first.get("weights") if isinstance(first, Mapping) else None
        bits = finite(weights.get("num_bits")) if isinstance(weights, Mapping) else None
    if bits is None or not 1 <= bits <= 16:
        return None
    group = finite(quantization.get("group_size") or quantization.get("q_group_size")) or _GROUP
    return bits + (_SCALE_BITS / group if bits < 8 and group > 0 else 0.0)
