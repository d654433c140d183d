"""vLLM: `vllm serve`."""

import os
import tempfile

from stoker_pyworker.presets.base import benchmarks, causes
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.server_config import FailureCause, MetricNames

METRICS = MetricNames(
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    cache_used=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    output_tokens=("vllm:generation_tokens_total",),
)

_MEMORY_SHARE = FailureCause(
    name="memory_share",
    pattern=r"memory on (node|device) .* is less than desired",
    sentence="other processes use memory that vLLM wants for itself: end them, rent a whole GPU,"
    " or lower the share in MODEL_ARGS, e.g. --gpu-memory-utilization 0.5",
)
CAUSES = (_MEMORY_SHARE, *causes.TRANSFORMERS)

_SHORT_FOLDER = "/tmp"  # noqa: S108 - vLLM's own default; its names are random
_SOCKET_FOLDER_BYTES_MAX = 70
"""A socket's path has at most 107 bytes on Linux; vLLM's names have 36."""

DOWNLOADED = r"Time spent downloading weights for .*: (?P<seconds>[0-9]+\.[0-9]+) seconds"


def command(settings: PresetSettings) -> list[str]:
    """The server on the loopback address, with as many GPUs as the machine has."""
    words = ["vllm", "serve", settings.model, "--host", "127.0.0.1", "--port", str(settings.port)]
    if settings.alias:
        words += ["--served-model-name", settings.alias]
    if settings.context:
        words += ["--max-model-len", str(settings.context)]
    if settings.parallel:
        words += ["--max-num-seqs", str(settings.parallel)]
    if settings.gpus > 1:
        words += ["--tensor-parallel-size", str(settings.gpus)]
    return words


def environment(_: PresetSettings) -> dict[str, str]:
    """Short paths for the sockets that vLLM makes in the folder for temporary files, where that one is too long."""
    folder = os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir()
    return (
        {"VLLM_RPC_BASE_PATH": _SHORT_FOLDER} if len(os.fsencode(folder)) > _SOCKET_FOLDER_BYTES_MAX else {}
    )


PRESET = Preset(
    name="vllm",
    command=command,
    environment=environment,
    program_words=2,
    model="a Hugging Face repository or a folder, such as Qwen/Qwen2.5-0.5B-Instruct",
    health_path="/health",  # answered by the API server's process, while the engine computes in another
    downloaded=DOWNLOADED,
    routes=(
        PresetRoute(path="/v1/chat/completions"),
        PresetRoute(path="/v1/completions"),
        PresetRoute(path="/v1/responses"),
    ),
    benchmark_path="/v1/completions",
    benchmark=lambda settings: benchmarks.completions(settings.served_name, extra={"ignore_eos": True}),
    metrics=METRICS,
    perf=1000.0,
    causes=CAUSES,
)
