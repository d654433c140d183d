"""Starts the tracing of a process as the standard `OTEL_…` variables ask. Loads OpenTelemetry only then."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stoker_wire.errors.picklable import PicklableError

if TYPE_CHECKING:
    from stoker_wire.tracing.tracer import Tracing

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DISABLED = "OTEL_SDK_DISABLED"


class TracingUnavailable(PicklableError, Exception):
    """Traces are asked for and cannot be made. The message is one sentence, without values of variables."""


def asking_variable(variables: Mapping[str, str]) -> str:
    """The variable that asks for traces; empty: none does."""
    if variables.get(_DISABLED, "").strip().lower() == "true":
        return ""
    if exporter := variables.get(_EXPORTER, "").strip():
        return "" if exporter == "none" else _EXPORTER
    return next((name for name in _ENDPOINTS if variables.get(name, "").strip()), "")


def start_tracing(service: str, *, package: str) -> Tracing | None:
    """The tracing of this process; None if no variable of its environment asks for it.

    Args:
        service: the service's name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name it.
        package: the distribution whose extra `otel` brings the libraries.

    Raises:
        TracingUnavailable: the libraries are missing, or a variable cannot be used.
    """
    asked = asking_variable(os.environ)
    if not asked:
        return None
    try:
        from stoker_wire.tracing.tracer import Tracing  # noqa: PLC0415 - only who asks for traces pays for them
    except ImportError as fault:
        raise TracingUnavailable(
            f"{asked} asks for traces, but {fault.name or 'OpenTelemetry'} is not installed; "
            f'run pip install "{package}[otel]", or set {_DISABLED}=true'
        ) from None
    except Exception as fault:  # noqa: BLE001 - its import reads variables
        raise TracingUnavailable(
            f"OpenTelemetry cannot be loaded with the OTEL_… variables: {fault}; correct them, or set {_DISABLED}=true"
        ) from None
    return Tracing.start(service)
