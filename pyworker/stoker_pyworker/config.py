"""What a user writes in `worker.py`: the same classes and names as the official package's."""

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from stoker_wire.picklable import PicklableError
from stoker_wire.route import COST_MAX

JsonObject = dict[str, Any]
DEFAULT_WORKLOAD = 100.0


class ConfigError(ValueError):
    """The worker cannot start with this configuration; the message lists everything that is wrong."""


class JsonDataException(PicklableError, Exception):
    """Raised by a `request_parser`: the request is answered with 422 and this message."""

    def __init__(self, json_msg: JsonObject) -> None:
        self.message = json_msg
        super().__init__(str(json_msg))


@dataclass
class LogActionConfig:
    """Lines of the model's log that mean something: each is looked for anywhere in a line."""

    on_load: list[str] = field(default_factory=list)
    """The model is loaded."""
    on_error: list[str] = field(default_factory=list)
    """The model is broken."""
    on_info: list[str] = field(default_factory=list)
    """Worth a line in the worker's own log."""


@dataclass
class BenchmarkConfig:
    """How the worker measures its perf, in workload per second."""

    dataset: list[JsonObject] | None = None
    """Payloads, taken in turn."""
    generator: Callable[[], JsonObject] | None = None
    """Or a function that makes one."""
    runs: int = 8
    concurrency: int | None = 10
    """Requests at once in a run; 1 unless the handler allows parallel requests."""
    do_warmup: bool = True


@dataclass
class HandlerConfig:
    """One route of the model server."""

    route: str
    healthcheck: str | None = None
    allow_parallel_requests: bool = False
    """False: the worker's requests form one queue, and this route's wait their turn in it."""
    max_queue_time: float | None = 30.0
    """Seconds: over this expected wait a request is refused with 429. None: never."""
    benchmark_config: BenchmarkConfig | None = None
    handler_class: type[Any] | None = None
    payload_class: type[Any] | None = None
    """A class with `from_json_msg`, `generate_payload_json`, `count_workload` and `for_test`; with
    `generate_payload_multipart` too, its fields go to the model as a form (`stoker_pyworker.proxy.forms`)."""
    request_parser: Callable[[JsonObject], JsonObject] | None = None
    """Changes a payload before it goes to the model; may raise JsonDataException."""
    response_generator: Callable[[Any, Any], Awaitable[Any]] | None = None
    """Makes the client's answer from the model's (`stoker_pyworker.proxy.hooks`)."""
    workload_calculator: Callable[[JsonObject], float] | None = None
    """The payload's workload. None: the cost that the ticket allows."""
    is_remote_dispatch: bool = False
    remote_function: Callable[..., Awaitable[Any]] | None = None
    """Called with the payload instead of a model server; the answer is `{"result": …}`."""


@dataclass
class WorkerConfig:
    """The model server, its routes, and how to see that it is ready."""

    model_server_url: str | None = None
    """Scheme and host, e.g. `http://127.0.0.1`."""
    model_server_port: int | None = None
    model_log_file: str | None = None
    benchmark_data: list[JsonObject] = field(default_factory=list)
    handlers: list[HandlerConfig] = field(default_factory=list)
    model_healthcheck_url: str | None = None
    """Path on the model server, answered 200 when the model is well."""
    benchmark_route: str | None = None
    log_action_config: LogActionConfig = field(default_factory=LogActionConfig)
    max_sessions: int | None = 10
    """None or 0: no limit."""
    lifecycle: AbstractAsyncContextManager[Any] | None = None
    """Entered before the benchmark; readiness then does not look at the log."""

    # what only stoker's worker knows
    cost_tolerance: float = 1.0
    """A computed workload may be this many times the ticket's cost."""
    model_name: str = ""
    """Part of the benchmark's fingerprint: change it, and the benchmark runs again."""
    body_bytes_max: int = 64 * 1024 * 1024
    model_connections_max: int = 1024

    @property
    def origin(self) -> str:
        """The model server's address, e.g. `http://127.0.0.1:8000`."""
        return f"{self.model_server_url or 'http://127.0.0.1'}:{self.model_server_port or 80}"

    def check(self) -> None:
        """See that the worker can run with this.

        Raises:
            ConfigError: with every fault found.
        """
        faults = []
        url = self.model_server_url
        if url is not None and not _is_host(url):
            faults.append(
                f"model_server_url: http://host or https://host, the port in model_server_port, was expected; {url!r} came"
            )
        port = self.model_server_port
        needs_model = any(handler.remote_function is None for handler in self.handlers)
        if needs_model and (not isinstance(port, int) or not 0 < port < 65536):
            faults.append(f"model_server_port: a port number was expected, {port!r} came")
        if not self.handlers:
            faults.append("handlers: at least one HandlerConfig was expected")
        if not self.cost_tolerance > 0:
            faults.append(f"cost_tolerance: a number above 0 was expected, {self.cost_tolerance!r} came")
        routes = [handler.route for handler in self.handlers]
        for handler in self.handlers:
            faults += _faults_of(handler)
            if routes.count(handler.route) > 1:
                faults.append(f"handlers: the route {handler.route!r} is given twice")
                break
        if sum(handler.benchmark_config is not None for handler in self.handlers) != 1:
            faults.append("handlers: exactly one needs a benchmark_config, so that the worker knows its perf")
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def benchmark_handler(self) -> HandlerConfig:
        """The one handler with a benchmark."""
        return next(handler for handler in self.handlers if handler.benchmark_config is not None)


def _is_host(url: str) -> bool:
    """Whether it is a scheme and a host and nothing else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.path or parts.query or parts.fragment or parts.username or port)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and bare


_RESERVED = ("/session/", "/pyworker/", "/healthz")


def _faults_of(handler: HandlerConfig) -> list[str]:
    name = f"handler {handler.route!r}"
    faults = []
    if not handler.route.startswith("/") or any(mark in handler.route for mark in "?# \r\n"):
        faults.append(f"{name}: a route is a path like /v1/completions")
    elif handler.route.startswith(_RESERVED):
        faults.append(f"{name}: this path is the worker's own; give the model's route another one")
    if handler.handler_class is not None:
        faults.append(f"{name}: handler_class is not supported; use request_parser and response_generator")
    if handler.max_queue_time is not None and not handler.max_queue_time > 0:
        faults.append(f"{name}: max_queue_time is seconds above 0, or None; {handler.max_queue_time!r} came")
    benchmark = handler.benchmark_config
    if benchmark is not None:
        if not benchmark.dataset and benchmark.generator is None and handler.payload_class is None:
            faults.append(f"{name}: benchmark_config needs a dataset or a generator")
        if benchmark.runs < 1 or (benchmark.concurrency is not None and benchmark.concurrency < 1):
            faults.append(f"{name}: benchmark_config needs runs and concurrency of 1 or more")
    return faults


def sane_workload(value: Any) -> float | None:
    """The workload as a number, or None if a calculator returned something else (negative, NaN, text).

    What is beyond every cost that an engine takes (`stoker_wire.route.COST_MAX`) counts as that: payloads say what they like.
    """
    try:
        workload = float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # a whole number beyond all floats
        workload = math.inf if value > 0 else -math.inf
    return min(workload, COST_MAX) if workload >= 0 else None
