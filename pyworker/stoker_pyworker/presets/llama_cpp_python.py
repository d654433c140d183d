"""llama-cpp-python's server: `python -m llama_cpp.server`. It runs one request at a time."""

from stoker_pyworker.presets.base import benchmarks, causes
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.presets.llama_server import PRESET as LLAMA_SERVER
from stoker_pyworker.presets.llama_server import is_file


def command(settings: PresetSettings) -> list[str]:
    """The server on the loopback address. Without `interrupt_requests` a second request does not cut the first one."""
    words = ["python3", "-m", "llama_cpp.server"]
    if is_file(settings.model):
        words += ["--model", settings.model]
    else:
        repository, _, quantisation = settings.model.partition(":")
        words += ["--hf_model_repo_id", repository, "--model", f"*{quantisation or 'Q4_K_M'}*.gguf"]
    words += ["--host", "127.0.0.1", "--port", str(settings.port), "--interrupt_requests", "false"]
    if settings.alias:
        words += ["--model_alias", settings.alias]
    if settings.context:
        words += ["--n_ctx", str(settings.context)]
    return words


PRESET = Preset(
    name="llama-cpp-python",
    command=command,
    program_words=3,
    model="a GGUF file or a repository, such as ./model.gguf or Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    # /v1/models takes the lock of the model, so that a probe would wait for a running request, or cut it.
    health_path="",
    ready_lines=("Uvicorn running on",),  # "Application startup complete" comes before the port is bound
    routes=(
        PresetRoute(path="/v1/chat/completions", parallel=False),
        PresetRoute(path="/v1/completions", parallel=False),
    ),
    benchmark_path="/v1/completions",
    # The server ends a request whose client has gone only while it streams.
    benchmark=lambda settings: benchmarks.completions(
        settings.served_name, extra={"stream": True}, short=True
    ),
    perf=20.0,
    causes=(*LLAMA_SERVER.causes, causes.UNSUPPORTED_MODEL),
)
