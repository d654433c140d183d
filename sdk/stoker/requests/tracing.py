"""The span of a request, in programs that use OpenTelemetry.

The program chooses the provider, the sampler and the exporter. A program that never imported OpenTelemetry pays one
lookup per request.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stoker.requests.progress import Progress, RequestStatus

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

NO_FIELDS: Mapping[str, str] = {}


class RequestTrace:
    """One request's span, a child of the caller's current one. Engine and worker make theirs its children."""

    def __init__(self, endpoint: str, path: str) -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - the program has loaded it

        tracer = trace.get_tracer("stoker", importlib.metadata.version("stoker"))
        attributes = {"stoker.endpoint": endpoint, "stoker.path": path.partition("?")[0]}
        self._span: Span = tracer.start_span(
            "stoker.request", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        self._error = trace.StatusCode.ERROR
        fields: dict[str, str] = {}
        propagate.inject(fields, context=trace.set_span_in_context(self._span))
        self.fields: Mapping[str, str] = fields
        """The header fields for engine and worker."""

    def end(self, progress: Progress, error: BaseException | None = None) -> None:
        """The request has ended; a second call does nothing."""
        span = self._span
        if not span.is_recording():
            return
        span.set_attribute("stoker.request_id", str(progress.request_idx))
        span.set_attribute("stoker.attempts", progress.attempts)
        span.set_attribute("stoker.outcome", progress.status.value)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
        if progress.status is RequestStatus.ERRORED:
            span.set_status(self._error)
        span.end()


def trace_of(endpoint: str, path: str) -> RequestTrace | None:
    """The trace of a new request; None if the program does not use OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    try:
        return RequestTrace(endpoint, path)
    except (ImportError, ValueError):  # of OpenTelemetry itself, for example for OTEL_PROPAGATORS
        return None
