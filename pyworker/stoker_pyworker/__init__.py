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
from stoker_wire.workload import (
    AudioWorkload,
    ConstantWorkload,
    FieldWorkload,
    PixelWorkload,
    TokenWorkload,
)

__all__ = [
    "AudioWorkload",
    "BenchmarkConfig",
    "ConfigError",
    "ConstantWorkload",
    "FieldWorkload",
    "HandlerConfig",
    "JsonDataException",
    "LogActionConfig",
    "PixelWorkload",
    "TokenWorkload",
    "Worker",
    "WorkerConfig",
]
