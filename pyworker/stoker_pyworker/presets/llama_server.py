"""llama.cpp's own server: `llama-server`."""

from stoker_pyworker.presets.base import benchmarks, causes
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.server_config import FailureCause, MetricNames
from stoker_wire.workload import TokenWorkload


def is_file(model: str) -> bool:
    """Whether the model is a GGUF file rather than a repository on Hugging Face."""
    return model.endswith(".gguf") or model.startswith(("/", "./", "../", "~"))


def command(settings: PresetSettings) -> list[str]:
    """The server on the loopback address, with metrics and without its web page."""
    source = ["--model" if is_file(settings.model) else "--hf-repo", settings.model]
    words = [
        "llama-server",
        *source,
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.port),
        "--metrics",
        "--no-webui",
    ]
    if settings.alias:
        words += ["--alias", settings.alias]
    if settings.parallel:
        words += ["--parallel", str(settings.parallel)]
    if settings.context:
        # llama-server divides the context among its slots.
        words += ["--ctx-size", str(settings.context * max(1, settings.parallel))]
    return words


PRESET = Preset(
    name="llama-server",
    command=command,
    environment=lambda settings: {"LLAMA_CACHE": settings.cache} if settings.cache else {},
    model="a GGUF file or a repository, such as ./model.gguf or ggml-org/SmolLM3-3B-GGUF:Q4_K_M",
    health_path="/health",  # 503 while the model loads; answered by an HTTP thread, not by a slot
    downloaded=r"load_model: loading model",
    routes=(
        PresetRoute(path="/v1/chat/completions"),
        PresetRoute(path="/v1/completions"),
        PresetRoute(path="/completion", rule=TokenWorkload(output_fields=("n_predict", "max_tokens"))),
    ),
    benchmark_path="/v1/completions",
    benchmark=lambda settings: benchmarks.completions(
        settings.served_name, extra={"ignore_eos": True}, concurrency=settings.parallel or 4, short=True
    ),
    metrics=MetricNames(
        running=("llamacpp:requests_processing",),
        waiting=("llamacpp:requests_deferred",),
        cache_used=("llamacpp:kv_cache_usage_ratio",),
        output_tokens=("llamacpp:tokens_predicted_total",),
    ),
    perf=40.0,
    causes=(
        FailureCause(
            name="not_gguf",
            pattern=r"invalid magic characters|expected 'GGUF'",
            sentence="the file is not in GGUF format: correct MODEL_NAME, or convert the model",
            final=True,
            everywhere=True,
        ),
        causes.UNSUPPORTED_MODEL,
        FailureCause(
            name="cache_memory",
            pattern=r"failed to allocate buffer for kv cache|failed to allocate compute",
            sentence="the weights fit, but not the KV cache: lower MODEL_CONTEXT or MODEL_PARALLEL",
            final=True,
        ),
    ),
)
