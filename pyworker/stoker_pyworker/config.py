"""The configuration in a user's `worker.py`, with the classes and names of the official package."""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from stoker_pyworker.payloads import Body
from stoker_pyworker.server_config import ModelServerConfig
from stoker_wire.errors.picklable import PicklableError
from stoker_wire.http.path_pattern import METHODS, PathPattern, overlap
from stoker_wire.route import COST_MAX

JsonObject = dict[str, Any]
DEFAULT_WORKLOAD = 100.0


class ConfigError(ValueError):
    """The worker cannot start with this configuration. The message lists every error."""


class JsonDataException(PicklableError, Exception):
    """Raised by a `request_parser`: the worker answers 422 with this message."""

    def __init__(self, json_msg: JsonObject) -> None:
        self.message = json_msg
        super().__init__(str(json_msg))


@dataclass
class LogActionConfig:
    """Texts to search for in the lines of the model's log."""

    on_load: list[str] = field(default_factory=list)
    """Means that the model is loaded."""
    on_error: list[str] = field(default_factory=list)
    """Means that the model has failed."""
    on_info: list[str] = field(default_factory=list)
    """The worker copies the line to its own log."""


CONCURRENCY = 10
"""Requests at a time of a benchmark that does not say how many."""


@dataclass
class BenchmarkConfig:
    """The benchmark that measures the worker's perf, in workload per second."""

    dataset: Sequence[JsonObject | Body] | None = None
    """Payloads, used in turn: JSON objects, a `Form` or a `Body`."""
    generator: Callable[[], JsonObject | Body] | None = None
    """A function that generates a payload, instead of a dataset."""
    runs: int = 8
    concurrency: int | None = CONCURRENCY
    """Concurrent requests of a run; always 1 unless the handler allows parallel requests.

    The engine fills the worker with so many requests before others count as waiting. Best is where the server's
    throughput stops growing; fewer make answers faster and each of them dearer."""
    do_warmup: bool = True


@dataclass
class HandlerConfig:
    """One route of the model server."""

    route: str
    """A path, or a pattern: `/history/{id}` for one segment, `/files/{path:path}` for the rest of the path."""
    healthcheck: str | None = None
    allow_parallel_requests: bool = False
    """False: requests wait in the queue that all such routes of the worker share."""
    max_queue_time: float | None = 30.0
    """Seconds. A request with a longer expected wait is refused with 429. None: no limit."""
    benchmark_config: BenchmarkConfig | None = None
    handler_class: type[Any] | None = None
    payload_class: type[Any] | None = None
    """A class with `from_json_msg`, `generate_payload_json`, `count_workload` and `for_test`.

    `from_json_msg` receives a JSON object, a `Form` or a `Body`, as the client sent it; an exception for the latter two
    is answered with 415. `generate_payload_json` may return each of them. With `generate_payload_multipart`, its fields
    are sent to the model as a multipart form."""
    request_parser: Callable[[JsonObject], JsonObject] | None = None
    """Changes the payload for the model: a JSON object, or a `Form`. May raise JsonDataException."""
    response_generator: Callable[[Any, Any], Awaitable[Any]] | None = None
    """Makes the client's response from the model's (`stoker_pyworker.proxy.hooks`)."""
    workload_calculator: Callable[[JsonObject], float] | None = None
    """The workload of a payload: a function, or a rule of `stoker_wire.workload`, which the engine applies too.

    None: the cost of the ticket."""
    is_remote_dispatch: bool = False
    remote_function: Callable[..., Awaitable[Any]] | None = None
    """Called with the payload instead of a model server. The response is `{"result": …}`."""

    # Not in the official package.
    methods: tuple[str, ...] = ("POST",)
    """HTTP methods. GET includes HEAD."""
    websocket: bool = False
    """The route takes WebSocket handshakes, and no other requests. Its request lasts until the WebSocket closes."""
    in_job: bool = False
    """One ticket is valid for all calls of one job: for routes with this flag, until the job ends.

    Calls without a body (GET, HEAD, OPTIONS, WebSocket) add no workload to the job, unless they have a rule."""

    @property
    def pattern(self) -> PathPattern:
        """The paths of the route. Raises ValueError for an invalid pattern."""
        return PathPattern(self.route)

    @property
    def concurrency(self) -> int:
        """Requests at a time of a benchmark on this route."""
        benchmark = self.benchmark_config or BenchmarkConfig()
        return (benchmark.concurrency or CONCURRENCY) if self.allow_parallel_requests else 1


@dataclass
class WorkerConfig:
    """The model server, its routes and its readiness checks."""

    model_server_url: str | None = None
    """Scheme and host, e.g. `http://127.0.0.1`."""
    model_server_port: int | None = None
    model_log_file: str | None = None
    benchmark_data: list[JsonObject] = field(default_factory=list)
    handlers: list[HandlerConfig] = field(default_factory=list)
    model_healthcheck_url: str | None = None
    """Path on the model server that answers 200 while the model is healthy."""
    benchmark_route: str | None = None
    log_action_config: LogActionConfig = field(default_factory=LogActionConfig)
    max_sessions: int | None = 10
    """None or 0: no limit."""
    lifecycle: AbstractAsyncContextManager[Any] | None = None
    """Entered before the benchmark. The log is not used for readiness then."""

    # Not in the official package.
    cost_tolerance: float = 1.0
    """A request is refused if its workload is over the ticket's cost times this factor."""
    model_name: str = ""
    """Part of the benchmark's fingerprint: after a change the benchmark runs again."""
    body_bytes_max: int = 64 * 1024 * 1024
    model_connections_max: int = 1024
    server: ModelServerConfig | None = None
    """The worker runs this model server itself. `model_log_file` is then written by the worker."""
    job_seconds_max: float = 3600.0
    """A job ends at this age, and so does a WebSocket outside of a job and of a session."""
    job_idle_seconds: float = 10.0
    """After this time without a running call, a job no longer counts as load and takes no more work."""
    job_calls_max: int = 10_000

    @property
    def origin(self) -> str:
        """The model server's address, e.g. `http://127.0.0.1:8000`."""
        return f"{self.model_server_url or 'http://127.0.0.1'}:{self.model_server_port or 80}"

    def check(self) -> None:
        """Validate the configuration.

        Raises:
            ConfigError: with every error.
        """
        faults = []
        url = self.model_server_url
        if url is not None and not _is_host(url):
            faults.append(
                "model_server_url: expected http://host or https://host, with the port in model_server_port;"
                f" received {url!r}"
            )
        port = self.model_server_port
        needs_model = any(handler.remote_function is None for handler in self.handlers)
        if needs_model and (not isinstance(port, int) or not 0 < port < 65536):
            faults.append(f"model_server_port: expected a port number, received {port!r}")
        if not self.handlers:
            faults.append("handlers: expected at least one HandlerConfig")
        if self.server is not None:
            faults += _server_faults(self.server, has_lifecycle=self.lifecycle is not None)
        if not self.cost_tolerance > 0:
            faults.append(f"cost_tolerance: expected a number above 0, received {self.cost_tolerance!r}")
        faults += [
            f"{name}: expected a number above 0, received {getattr(self, name)!r}"
            for name in ("job_seconds_max", "job_idle_seconds", "job_calls_max")
            if not getattr(self, name) > 0
        ]
        valid: list[HandlerConfig] = []
        for handler in self.handlers:
            found = _handler_faults(handler)
            faults += found
            if found:
                continue
            if any(overlap(handler, other) for other in valid):
                faults.append(f"handlers: the route {handler.route!r} is configured twice")
                break
            valid.append(handler)
        measured = sum(handler.benchmark_config is not None for handler in self.handlers)
        if measured != 1 and not (measured == 0 and self.server is not None and self.server.initial_perf > 0):
            faults.append(
                "handlers: expected benchmark_config on exactly one handler, to measure the worker's perf"
            )
        if faults:
            raise ConfigError("; ".join(faults))

    @property
    def benchmark_handler(self) -> HandlerConfig | None:
        """The one handler with a benchmark. None: the server's `initial_perf` counts."""
        return next((handler for handler in self.handlers if handler.benchmark_config is not None), None)

    @property
    def concurrency(self) -> int:
        """Requests at a time at which perf is measured; 0: nothing measures it."""
        handler = self.benchmark_handler
        return 0 if handler is None else handler.concurrency


def _is_host(url: str) -> bool:
    """Whether the address has only a scheme and a host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.path or parts.query or parts.fragment or parts.username or port)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and bare


def _server_faults(server: ModelServerConfig, *, has_lifecycle: bool) -> list[str]:
    faults = []
    if not server.command or not all(isinstance(each, str) and each for each in server.command[:1]):
        faults.append(
            f"command: expected a program and its arguments as a list, received {server.command!r:.100}"
        )
    faults += [
        f"command: expected text for each argument, received {each!r:.100}"
        for each in server.command
        if not isinstance(each, str)
    ]
    if not server.startup_seconds_max > 0:
        faults.append(
            f"startup_seconds_max: expected seconds above 0, received {server.startup_seconds_max!r}"
        )
    if has_lifecycle:
        faults.append("command and lifecycle: expected one of them; both start the model server")
    return faults


_RESERVED = ("/session/", "/pyworker/", "/healthz")


def _handler_faults(handler: HandlerConfig) -> list[str]:
    name = f"handler {handler.route!r}"
    faults = []
    if not handler.route.startswith("/") or any(mark in handler.route for mark in "?# \r\n"):
        faults.append(f"{name}: expected a path like /v1/completions")
    elif handler.route.startswith(_RESERVED):
        faults.append(f"{name}: the worker itself uses this path; use another one")
    else:
        try:
            PathPattern(handler.route)
        except ValueError as fault:
            faults.append(f"{name}: {fault}")
    faults += _method_faults(name, handler)
    if handler.handler_class is not None:
        faults.append(f"{name}: handler_class is not supported; use request_parser and response_generator")
    if handler.max_queue_time is not None and not handler.max_queue_time > 0:
        faults.append(
            f"{name}: max_queue_time: expected seconds above 0 or None, received {handler.max_queue_time!r}"
        )
    benchmark = handler.benchmark_config
    if benchmark is not None:
        if "POST" not in handler.methods or handler.websocket or "{" in handler.route:
            faults.append(f"{name}: benchmark_config needs a route without variables that takes POST")
        if not benchmark.dataset and benchmark.generator is None and handler.payload_class is None:
            faults.append(f"{name}: benchmark_config needs a dataset or a generator")
        if benchmark.runs < 1 or (benchmark.concurrency is not None and benchmark.concurrency < 1):
            faults.append(f"{name}: benchmark_config needs runs and concurrency of 1 or more")
    return faults


def _method_faults(name: str, handler: HandlerConfig) -> list[str]:
    faults = []
    if isinstance(handler.methods, str) or not handler.methods or not set(handler.methods) <= set(METHODS):
        faults.append(f"{name}: methods: expected some of {', '.join(METHODS)}, received {handler.methods!r}")
    elif handler.websocket and handler.methods != ("POST",):
        faults.append(
            f"{name}: a route with websocket=True takes no methods; declare another handler for them"
        )
    reads_json = (
        handler.request_parser
        or handler.payload_class
        or handler.response_generator
        or handler.remote_function
    )
    if reads_json and (handler.websocket or not set(handler.methods) <= {"POST", "PUT", "PATCH"}):
        faults.append(f"{name}: hooks need a JSON body; use them with POST, PUT and PATCH only")
    if handler.in_job and not handler.allow_parallel_requests:
        faults.append(f"{name}: in_job needs allow_parallel_requests=True: the calls of a job overlap")
    return faults


def parse_workload(value: Any) -> float | None:
    """The workload as a number, or None if a calculator returned an invalid value (negative, NaN, text).

    Larger values become the largest cost that an engine accepts (`stoker_wire.route.COST_MAX`).
    """
    try:
        workload = float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # an integer too large for a float
        workload = math.inf if value > 0 else -math.inf
    return min(workload, COST_MAX) if workload >= 0 else None
