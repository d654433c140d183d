"""Text Generation Inference: `text-generation-launcher`."""

from stoker_pyworker.config import BenchmarkConfig
from stoker_pyworker.presets.base import benchmarks, causes
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.server_config import FailureCause, MetricNames
from stoker_wire.workload import TokenWorkload

_GENERATE = TokenWorkload(output_fields=("parameters.max_new_tokens",), output_default=100.0)


def command(settings: PresetSettings) -> list[str]:
    """The launcher on the loopback address."""
    words = ["text-generation-launcher", "--model-id", settings.model]
    words += ["--hostname", "127.0.0.1", "--port", str(settings.port)]
    if settings.context:
        # The default of the prompt's limit comes from the model, and the launcher refuses one that exceeds the total.
        words += ["--max-input-tokens", str(max(1, settings.context - 1))]
        words += ["--max-total-tokens", str(settings.context)]
    if settings.parallel:
        words += ["--max-concurrent-requests", str(settings.parallel)]
    if settings.gpus > 1:
        words += ["--num-shard", str(settings.gpus)]
    return words


def benchmark(_settings: PresetSettings) -> BenchmarkConfig:
    """The mix of the other servers in the form of `/generate`."""
    dataset = [
        {"inputs": each["prompt"], "parameters": {"max_new_tokens": each["max_tokens"]}}
        for each in benchmarks.payloads()
    ]
    return BenchmarkConfig(dataset=dataset, runs=2, concurrency=16)


PRESET = Preset(
    name="tgi",
    command=command,
    environment=lambda settings: {"HUGGINGFACE_HUB_CACHE": settings.cache} if settings.cache else {},
    model="a Hugging Face repository or a folder, such as Qwen/Qwen2.5-0.5B-Instruct",
    health_path="/health",
    downloaded=r"Successfully downloaded weights",
    routes=(
        PresetRoute(path="/v1/chat/completions"),
        PresetRoute(path="/generate", rule=_GENERATE),
        PresetRoute(path="/generate_stream", rule=_GENERATE),
    ),
    benchmark_path="/generate",
    benchmark=benchmark,
    metrics=MetricNames(
        running=("tgi_batch_current_size",),
        waiting=("tgi_queue_size",),
        output_tokens=("tgi_request_generated_tokens_sum",),
    ),
    perf=800.0,
    causes=(
        FailureCause(
            name="cache_memory",
            pattern=r"Not enough memory to handle \d+ prefill tokens",
            sentence="the weights fit, but not the KV cache: lower MODEL_CONTEXT, or search for offers with more gpu_ram",
            final=True,
        ),
        *causes.TRANSFORMERS,
    ),
)
