"""The web server on a GPU instance: proxies, benchmarks, watches and reports a model server."""

from stoker_pyworker.config import (
    BenchmarkConfig,
    ConfigError,
    HandlerConfig,
    JsonDataException,
    LogActionConfig,
    WorkerConfig,
)
from stoker_pyworker.worker import Worker

__all__ = [
    "BenchmarkConfig",
    "ConfigError",
    "HandlerConfig",
    "JsonDataException",
    "LogActionConfig",
    "Worker",
    "WorkerConfig",
]
