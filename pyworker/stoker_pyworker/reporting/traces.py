"""The spans of a worker's requests: the whole request, its time in the worker's queue, its time in the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stoker_pyworker.reporting.request_counts import Outcome

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

    from stoker_wire.http1.request import Request
    from stoker_wire.tracing.tracer import Tracing


class RequestTraces:
    """Begins a span when a request is admitted, and ends it with its parts."""

    def __init__(self, tracing: Tracing, launch_id: str) -> None:
        self._tracing = tracing
        self._launch_id = launch_id

    def begin(self, request: Request, route: str, request_idx: int) -> Span:
        """The request's span, as a child of the client's. The model server gets it as its parent."""
        attributes = {
            "http.route": route,
            "stoker.request_id": str(request_idx),
            "stoker.launch_id": self._launch_id,
        }
        span = self._tracing.serve("stoker.worker", request.headers, attributes)
        request.headers = self._tracing.with_parent(request.headers, span)
        return span

    def end(self, span: Span, *, entered_at: float, started_at: float, status: int, outcome: Outcome) -> None:
        """The request has ended. Both times are of `time.perf_counter`; `started_at` 0: it never left the queue."""
        now = time.time()
        offset = now - time.perf_counter()
        started = started_at + offset if started_at else now
        self._tracing.record("stoker.worker.queue", span, entered_at + offset, started, {})
        if started_at:
            self._tracing.record("stoker.worker.model", span, started, now, {})
        span.set_attribute("stoker.outcome", outcome.value)
        if status:
            span.set_attribute("http.response.status_code", status)
        if outcome is Outcome.ERROR:
            self._tracing.fail(span, "model_failed")
        span.end()
