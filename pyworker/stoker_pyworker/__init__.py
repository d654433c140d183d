"""The web server on a GPU instance: proxies, benchmarks, watches and reports a model server."""

from stoker_pyworker.config import (
    BenchmarkConfig,
    ConfigError,
    HandlerConfig,
    JsonDataException,
    LogActionConfig,
    WorkerConfig,
)
from stoker_pyworker.payloads import Body, Form
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
    "Body",
    "ConfigError",
    "ConstantWorkload",
    "FieldWorkload",
    "Form",
    "HandlerConfig",
    "JsonDataException",
    "LogActionConfig",
    "PixelWorkload",
    "TokenWorkload",
    "Worker",
    "WorkerConfig",
]
