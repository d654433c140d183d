"""SGLang: `python -m sglang.launch_server`."""

from stoker_pyworker.presets.base import benchmarks, causes
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.server_config import MetricNames
from stoker_wire.workload import TokenWorkload


def command(settings: PresetSettings) -> list[str]:
    """The server on the loopback address, with metrics."""
    words = ["python3", "-m", "sglang.launch_server", "--model-path", settings.model]
    words += ["--host", "127.0.0.1", "--port", str(settings.port), "--enable-metrics"]
    if settings.alias:
        words += ["--served-model-name", settings.alias]
    if settings.context:
        words += ["--context-length", str(settings.context)]
    if settings.parallel:
        words += ["--max-running-requests", str(settings.parallel)]
    if settings.gpus > 1:
        words += ["--tp-size", str(settings.gpus)]
    return words


PRESET = Preset(
    name="sglang",
    command=command,
    program_words=3,
    model="a Hugging Face repository or a folder, such as Qwen/Qwen2.5-0.5B-Instruct",
    # /health answers 503 until the warm-up has ended. By default it then generates a token, like /health_generate.
    health_path="/health",
    environment=lambda _: {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"},
    routes=(
        PresetRoute(path="/v1/chat/completions"),
        PresetRoute(path="/v1/completions"),
        PresetRoute(
            path="/generate",
            rule=TokenWorkload(
                output_fields=("sampling_params.max_new_tokens",), prompt_fields=("text", "input_ids")
            ),
        ),
    ),
    benchmark_path="/v1/completions",
    benchmark=lambda settings: benchmarks.completions(settings.served_name, extra={"ignore_eos": True}),
    metrics=MetricNames(
        running=("sglang:num_running_reqs", "sglang_num_running_reqs"),
        waiting=("sglang:num_queue_reqs", "sglang_num_queue_reqs"),
        cache_used=("sglang:token_usage", "sglang_token_usage"),
        output_tokens=("sglang:generation_tokens_total", "sglang_generation_tokens_total"),
    ),
    perf=1000.0,
    causes=causes.TRANSFORMERS,
)
