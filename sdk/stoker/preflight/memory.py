"""GPU memory of a model: weights, KV cache, activations and the server's own part.

Per GPU, with tensor parallelism over n GPUs:

* weights / n;
* KV cache = 2 * layers * KV heads * head size * bytes * tokens. KV heads are split over the GPUs, and copied where
  there are fewer heads than GPUs (vLLM, `ModelConfig.get_num_kv_heads`);
* activations of one step: the largest layer's input and output for the tokens of a batch, and the logits;
* the CUDA context and CUDA graphs.

vLLM uses at most `gpu_memory_utilization` of the memory, and refuses to start if one request of the full context does
not fit into the rest of it (https://docs.vllm.ai/en/stable/api/vllm/config/cache/). The same holds for SGLang
(`--mem-fraction-static`) and TGI (`--cuda-memory-fraction`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stoker.preflight.model_config import ModelShape

GIB = float(2**30)
MIB = float(2**20)

CONTEXT_DEFAULT = 8192
"""Context of a request if none is given. Doubled: the KV cache of one request doubles."""

GPU_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMemory:
    """Memory of a model server besides weights and KV cache."""

    utilization: float
    """Share of a GPU's memory that it uses."""
    batch_tokens: int
    """Tokens of one step."""
    batch_sequences: int
    """Sequences whose logits one step computes."""
    runtime_bytes: float
    """CUDA context, kernels and CUDA graphs, per GPU."""


BATCHING_SERVER = ServerMemory(
    utilization=0.9, batch_tokens=2048, batch_sequences=256, runtime_bytes=1.0 * GIB
)
"""vLLM, SGLang and TGI with their default limits."""
LLAMA_CPP = ServerMemory(utilization=0.97, batch_tokens=512, batch_sequences=1, runtime_bytes=0.5 * GIB)
"""llama.cpp (`--ubatch-size` 512) and servers that use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Memory that a model needs on each of `gpus` GPUs, bytes."""

    gpus: int
    context: int
    weights: float
    """Of all GPUs together; also what is downloaded."""
    kv_per_request: float
    """KV cache of one request of the full context, on one GPU."""
    activations: float
    runtime: float
    utilization: float

    @property
    def fixed_per_gpu(self) -> float:
        """What does not depend on the number of requests."""
        return self.weights / self.gpus + self.activations + self.runtime

    @property
    def per_gpu(self) -> float:
        """Memory that a GPU must have for one request of the full context."""
        return (self.fixed_per_gpu + self.kv_per_request) / self.utilization

    @property
    def gpu_ram(self) -> float:
        """`per_gpu` in the unit of search strings: thousands of MiB, rounded up to a tenth."""
        return math.ceil(self.per_gpu / MIB / 100) / 10

    def requests_on(self, gpu_ram_mib: float) -> int | None:
        """How many requests of the full context fit at the same time; None if they need no KV cache."""
        if not self.kv_per_request:
            return None
        free = gpu_ram_mib * MIB * self.utilization - self.fixed_per_gpu
        return max(0, int(free // self.kv_per_request))

    def __str__(self) -> str:
        where = "1 GPU" if self.gpus == 1 else f"each of {self.gpus} GPUs"
        parts = [f"weights {self.weights / self.gpus / GIB:.1f}"]
        if self.kv_per_request:
            parts.append(f"KV cache {self.kv_per_request / GIB:.1f} for {self.context} tokens")
        parts.append(f"server {(self.activations + self.runtime) / GIB:.1f}")
        share = f", of which it uses {self.utilization:.0%}" if self.utilization < 1 else ""
        return f"{self.per_gpu / GIB:.1f} GiB on {where} ({', '.join(parts)}{share})"


def gpu_counts(shape: ModelShape) -> tuple[int, ...]:
    """Numbers of GPUs over which the model can be split: its attention heads must divide evenly."""
    return tuple(count for count in GPU_COUNTS if shape.heads % count == 0)


def memory_need(
    shape: ModelShape,
    *,
    weights_bytes: float,
    context: int,
    gpus: int = 1,
    server: ServerMemory = BATCHING_SERVER,
    kv_bytes: float = 2.0,
) -> MemoryNeed:
    """The memory that a model needs; `kv_bytes` is the size of a number in the KV cache (1 with an FP8 cache)."""
    kv_per_token = shape.kv_values_per_token * kv_bytes
    kv_share = max(1, math.ceil(shape.kv_heads / gpus)) / max(1, shape.kv_heads)
    width = 4 * shape.hidden + 2 * shape.intermediate / gpus
    activations = server.batch_tokens * width * 2.0 + server.batch_sequences * shape.vocabulary * 4.0
    return MemoryNeed(
        gpus=gpus,
        context=context,
        weights=weights_bytes,
        kv_per_request=kv_per_token * context * kv_share,
        activations=activations,
        runtime=server.runtime_bytes,
        utilization=server.utilization,
    )


def default_context(shape: ModelShape) -> int:
    """The context length that is used if none is given."""
    return min(shape.context_max or CONTEXT_DEFAULT, CONTEXT_DEFAULT)
