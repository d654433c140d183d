"""Embeddings: vLLM with a pooling model."""

from stoker_pyworker.config import BenchmarkConfig
from stoker_pyworker.presets import vllm
from stoker_pyworker.presets.base import benchmarks
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_wire.workload import TokenWorkload

_RULE = TokenWorkload(output_fields=(), output_default=0.0, prompt_weight=1.0)
"""Prompt tokens: an embedding generates none."""


def command(settings: PresetSettings) -> list[str]:
    """vLLM as a pooling model."""
    return [*vllm.command(settings), "--runner", "pooling"]


def benchmark(settings: PresetSettings) -> BenchmarkConfig:
    """One request with one text, and one with several."""
    texts = benchmarks.texts()
    dataset = [{"model": settings.served_name, "input": each} for each in (*texts, texts)]
    return BenchmarkConfig(dataset=dataset, runs=2, concurrency=16)


PRESET = Preset(
    name="embeddings",
    command=command,
    environment=vllm.environment,
    program_words=2,
    model="a repository or folder of an embedding model, such as sentence-transformers/all-MiniLM-L6-v2",
    health_path="/health",
    routes=(PresetRoute(path="/v1/embeddings", rule=_RULE),),
    benchmark_path="/v1/embeddings",
    benchmark=benchmark,
    downloaded=vllm.DOWNLOADED,
    metrics=vllm.METRICS,
    perf=2000.0,
    causes=vllm.CAUSES,
)
