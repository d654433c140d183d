"""Ollama: `ollama serve`, which pulls the model before the worker is ready."""

import sys

from stoker_pyworker.presets.base import benchmarks
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.server_config import FailureCause
from stoker_wire.workload import TokenWorkload

_OPTIONS = TokenWorkload(output_fields=("options.num_predict",))


def command(settings: PresetSettings) -> list[str]:
    """`ollama serve` under a launcher that pulls and loads the model."""
    launcher = [sys.executable, "-m", "stoker_pyworker.presets.base.ollama_launcher", settings.model, "--"]
    return [*launcher, *(settings.command or ("ollama",)), "serve"]


def environment(settings: PresetSettings) -> dict[str, str]:
    """The loopback address; the model stays in memory, because the engine decides when a worker sleeps."""
    variables = {"OLLAMA_HOST": f"127.0.0.1:{settings.port}", "OLLAMA_KEEP_ALIVE": "-1"}
    if settings.cache:
        variables["OLLAMA_MODELS"] = settings.cache
    if settings.context:
        variables["OLLAMA_CONTEXT_LENGTH"] = str(settings.context)
    if settings.parallel:
        variables["OLLAMA_NUM_PARALLEL"] = str(settings.parallel)
    return variables


PRESET = Preset(
    name="ollama",
    command=command,
    program_words=0,
    environment=environment,
    model="an Ollama tag, such as qwen2.5:0.5b",
    health_path="/api/version",  # answered without the model
    ready_lines=("stoker: the model is loaded",),
    downloaded=r"stoker: pull: success",
    routes=(
        PresetRoute(path="/v1/chat/completions"),
        PresetRoute(path="/v1/completions"),
        PresetRoute(path="/api/chat", rule=_OPTIONS),
        PresetRoute(path="/api/generate", rule=_OPTIONS),
    ),
    benchmark_path="/v1/completions",
    benchmark=lambda settings: benchmarks.completions(
        settings.model, concurrency=settings.parallel or 1, short=True
    ),
    perf=40.0,
    causes=(
        FailureCause(
            name="unknown_model",
            pattern=r"stoker: the model cannot be pulled: .*(file does not exist|not found|invalid model name)",
            sentence="there is no such model in Ollama's library: correct MODEL_NAME",
            final=True,
            everywhere=True,
        ),
        FailureCause(
            name="memory",
            pattern=r"model requires more system memory",
            sentence="the model needs more memory than the machine has: take a smaller model",
            final=True,
        ),
    ),
)
