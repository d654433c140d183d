"""Errors of calls to Temporal."""

from temporalio.service import RPCError, RPCStatusCode

TEMPORAL_FAULTS = (RPCError, RuntimeError, TimeoutError, OSError)
"""Exceptions of calls that Temporal does not answer. A client that connects lazily raises RuntimeError."""


def is_gone(fault: Exception) -> bool:
    """Whether Temporal answered that no such workflow runs."""
    return isinstance(fault, RPCError) and fault.status is RPCStatusCode.NOT_FOUND


def rpc_error_text(fault: Exception) -> str:
    """A short text for a log field."""
    if isinstance(fault, RPCError):
        return f"{fault.status.name}: {fault.message[:200]}"
    return f"{type(fault).__name__}: {str(fault)[:200]}"
