"""Tracing of a role's process, and of its calls of Temporal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio.client import Interceptor, OutboundInterceptor, StartWorkflowInput, WorkflowHandle

from run.errors import CommandError
from stoker_wire.tracing.start import TracingUnavailable, start_tracing

if TYPE_CHECKING:  # loads OpenTelemetry
    from stoker_wire.tracing.tracer import Tracing

_HEADER = "_tracer-data"
"""Where Temporal's interceptor puts the context."""


def tracing_of(role: str) -> Tracing | None:
    """The tracing of a role's process; None if the OTEL_… variables do not ask for it.

    Raises:
        CommandError: they ask for it, and it cannot be made.
    """
    try:
        return start_tracing(f"stoker-{role}", package="stoker-controller")
    except TracingUnavailable as fault:
        raise CommandError(str(fault)) from None


def interceptors_of(tracing: Tracing | None) -> list[Interceptor]:
    """Temporal's own interceptor for a client, which its workers take over; none without tracing."""
    if tracing is None:
        return []
    from temporalio.contrib.opentelemetry import TracingInterceptor  # noqa: PLC0415 - belongs to the extra `otel`

    return [TracingInterceptor(tracing.provider.get_tracer("temporalio")), _WithoutEndlessTraces()]


class _WithoutEndlessTraces(Interceptor):
    """An endpoint's workflow runs for months. Its activities are traces of their own, not parts of its start's."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """The last interceptor before the call."""
        return _Starts(next)


class _Starts(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        input.headers = {name: value for name, value in input.headers.items() if name != _HEADER}
        return await super().start_workflow(input)
