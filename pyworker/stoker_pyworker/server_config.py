"""How the PyWorker runs a model server of its own: command, environment, causes of failure, metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

STARTUP_SECONDS_MAX = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCause:
    """A cause of failure that the model server's log reveals."""

    name: str
    pattern: str
    """Regular expression, searched in each line without regard to case."""
    sentence: str
    """The cause and its remedy."""
    final: bool = False
    """A restart on this machine cannot help, so the server is not started again."""
    everywhere: bool = False
    """No other machine can help either: the template, the model or a secret has to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNames:
    """Names of Prometheus samples that the model server exposes. The first name that is there counts; samples of
    several label sets are added, or for `cache_used` the largest is taken.
    """

    path: str = "/metrics"
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    cache_used: tuple[str, ...] = ()
    """Share of the KV cache in use, 0 to 1."""
    output_tokens: tuple[str, ...] = ()
    """Counter of generated tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServerConfig:
    """A model server that the worker starts, watches and stops."""

    command: tuple[str, ...]
    """Program and arguments. No shell reads them."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables in addition to the worker's own, which are passed on without the worker's credentials."""
    startup_seconds_max: float = STARTUP_SECONDS_MAX
    """The server has failed if it is not ready after this time."""
    stop_seconds_max: float = 15.0
    """From SIGTERM to SIGKILL."""
    log_bytes_max: int = 8 * 1024 * 1024
    """The log file is renamed to `<name>.1` at this size."""
    causes: tuple[FailureCause, ...] = ()
    """The first one of the tuple that a line of the log matched explains an exit."""
    downloaded_pattern: str = ""
    """Regular expression for the log line that ends the download of the weights. Its group `seconds`, if it has one,
    is the duration; else the time since the start is. Empty: the duration is not known."""
    metrics: MetricNames | None = None
    initial_perf: float = 0.0
    """Workload per second to report until the benchmark has run in an idle moment. 0: benchmark before serving."""
