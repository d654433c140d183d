"""A preset's description of its model server, and the worker that follows from it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stoker_pyworker.config import (
    BenchmarkConfig,
    ConfigError,
    HandlerConfig,
    JsonObject,
    LogActionConfig,
    WorkerConfig,
)
from stoker_pyworker.presets.base.causes import COMMON
from stoker_pyworker.presets.base.settings import PresetSettings, RouteSetting
from stoker_pyworker.server_config import FailureCause, MetricNames, ModelServerConfig
from stoker_wire.workload import ConstantWorkload, TokenWorkload, WorkloadRule


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetRoute:
    """A route of the model server."""

    path: str
    rule: WorkloadRule | Callable[[JsonObject], float] | None = TokenWorkload()
    parallel: bool = True
    responder: Callable[[PresetSettings], Callable[[Any, Any], Awaitable[Any]]] | None = None
    """Makes the `response_generator` of the route."""
    max_queue_time: float | None = None
    methods: tuple[str, ...] = ("POST",)
    websocket: bool = False
    in_job: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One kind of model server."""

    name: str
    command: Callable[[PresetSettings], list[str]]
    """Program and arguments. `MODEL_COMMAND` replaces the program, `MODEL_ARGS` are appended."""
    program_words: int = 1
    """How many words of the command `MODEL_COMMAND` replaces; 0: `command` reads it."""
    environment: Callable[[PresetSettings], Mapping[str, str]] = lambda _: {}
    model: str = "required"
    """What to say in the error if `MODEL_NAME` is missing; empty: it is optional."""
    health_path: str = "/health"
    """Chosen so that a probe disturbs no running request. Empty: the port accepts connections."""
    ready_lines: tuple[str, ...] = ()
    """Texts of a log line that tells that the model is loaded, for a server without such a health path."""
    downloaded: str = ""
    """Pattern of the log line after the download of the weights (`ModelServerConfig.downloaded_pattern`)."""
    routes: tuple[PresetRoute, ...] = ()
    benchmark_path: str = ""
    benchmark: Callable[[PresetSettings], BenchmarkConfig] | None = None
    metrics: MetricNames | None = None
    perf: float = 0.0
    """Workload per second of a small model on common hardware, until the benchmark has run."""
    causes: tuple[FailureCause, ...] = ()
    """Causes that only this server's log reveals; the common ones follow."""


def worker_config(preset: Preset, settings: PresetSettings) -> WorkerConfig:
    """The worker of a preset.

    Raises:
        ConfigError: a setting is missing or invalid.
    """
    if preset.model and not settings.model:
        raise ConfigError(f"MODEL_NAME (--model): expected {preset.model}, received nothing")
    words = preset.command(settings)
    if settings.command and preset.program_words:
        words = [*settings.command, *words[preset.program_words :]]
    handlers = _handlers(preset, settings)
    measured = any(handler.benchmark_config is not None for handler in handlers)
    perf = preset.perf if settings.perf is None else settings.perf
    if not measured and perf <= 0:
        raise ConfigError(
            "MODEL_PERF (--perf): expected the workload per second of this server, because no route has a benchmark"
        )
    config = WorkerConfig(
        model_server_port=settings.port,
        model_log_file=settings.log_file,
        model_healthcheck_url=settings.health_path or preset.health_path or None,
        model_name=" ".join((preset.name, *words[1:])),
        log_action_config=LogActionConfig(on_load=list(preset.ready_lines)),
        handlers=handlers,
        server=ModelServerConfig(
            command=(*words, *settings.args),
            env=_environment(preset, settings),
            startup_seconds_max=settings.startup_seconds_max,
            causes=(*preset.causes, *COMMON),
            downloaded_pattern=preset.downloaded,
            metrics=preset.metrics,
            initial_perf=perf,
        ),
    )
    config.check()
    return config


def _environment(preset: Preset, settings: PresetSettings) -> dict[str, str]:
    cache = {"HF_HOME": settings.cache} if settings.cache else {}
    return {"PYTHONUNBUFFERED": "1", **cache, **preset.environment(settings)}


def _within_context(rule: WorkloadRule | Callable[[JsonObject], float] | None, context: int) -> Any:
    """The rule with the server's context length as the limit of output tokens; 0: the rule's own limit."""
    if context and isinstance(rule, TokenWorkload):
        return rule.model_copy(update={"output_max": float(context)})
    return rule


def _handlers(preset: Preset, settings: PresetSettings) -> list[HandlerConfig]:
    added = {route.path: route for route in settings.routes}
    measured = next((route.path for route in settings.routes if route.benchmark), preset.benchmark_path)
    own = [route for route in preset.routes if route.path not in added]
    # A route of the preset that the user names again keeps what the user does not say.
    known = {route.path: route for route in preset.routes}
    own += [
        _changed(known.get(path) or PresetRoute(path=path, rule=ConstantWorkload(load=100.0)), each)
        for path, each in added.items()
    ]
    handlers = []
    for route in own:
        given = added[route.path].benchmark if route.path in added else ()
        benchmark = None
        if given and route.responder is not None:
            raise ConfigError(
                f"MODEL_ROUTES: {route.path} answers before its work is done, so it takes no benchmark"
            )
        if route.path == measured and given:
            benchmark = BenchmarkConfig(dataset=list(given), runs=2, concurrency=4)
        elif route.path == measured and preset.benchmark:
            benchmark = preset.benchmark(settings)
        handlers.append(
            HandlerConfig(
                route=route.path,
                allow_parallel_requests=route.parallel,
                max_queue_time=route.max_queue_time,
                workload_calculator=_within_context(route.rule, settings.context),
                response_generator=None if route.responder is None else route.responder(settings),
                benchmark_config=benchmark,
                methods=route.methods,
                websocket=route.websocket,
                in_job=route.in_job,
            )
        )
    return handlers


def _changed(route: PresetRoute, setting: RouteSetting) -> PresetRoute:
    return replace(
        route,
        rule=setting.rule or route.rule,
        parallel=route.parallel if setting.parallel is None else setting.parallel,
    )
