"""The ways in which Temporal fails to answer."""

from temporalio.service import RPCError, RPCStatusCode

TEMPORAL_FAULTS = (RPCError, RuntimeError, TimeoutError, OSError)
"""RuntimeError: a client that connects lazily and finds nobody."""


def is_gone(fault: Exception) -> bool:
    """Whether Temporal rpc_error_text that there is no such running workflow."""
    return isinstance(fault, RPCError) and fault.status is RPCStatusCode.NOT_FOUND


def rpc_error_text(fault: Exception) -> str:
    """The fault in a few words, for a log field."""
    if isinstance(fault, RPCError):
        return f"{fault.status.name}: {fault.message[:200]}"
    return f"{type(fault).__name__}: {str(fault)[:200]}"
