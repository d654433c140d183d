"""Temporal's errors as this package's errors, for `stoker.control`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.client import (
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from stoker.errors import EndpointNotFound, Refused, TemporalUnavailable

NAME_TAKEN = "name_taken"


@contextmanager
def temporal_errors(endpoint_name: str) -> Iterator[None]:
    """Raise Temporal's errors as this package's errors."""
    try:
        yield
    except WorkflowAlreadyStartedError:
        raise Refused(
            f"there is a live endpoint {endpoint_name!r}; delete it or take another name",
            status=409,
            code=NAME_TAKEN,
        ) from None
    except WorkflowUpdateFailedError as fault:
        cause = fault.cause
        code = (cause.type or "") if isinstance(cause, ApplicationError) else ""
        raise Refused(str(cause or fault), status=400, code=code) from None
    except WorkflowQueryFailedError as fault:
        raise Refused(
            f"endpoint {endpoint_name} could not answer: {fault}", status=400, code="query_failed"
        ) from None
    except WorkflowFailureError as fault:
        raise Refused(
            f"the workflow of endpoint {endpoint_name} failed: {fault.cause}", status=500, code="failed"
        ) from None
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        raise _no_worker(endpoint_name) from None
    except RPCError as fault:
        if fault.status is RPCStatusCode.NOT_FOUND:
            raise EndpointNotFound(f"no live endpoint {endpoint_name!r} in this namespace") from None
        if fault.status in {
            RPCStatusCode.DEADLINE_EXCEEDED,
            RPCStatusCode.CANCELLED,
            RPCStatusCode.FAILED_PRECONDITION,  # a query, when no worker has polled for a while
        }:
            raise _no_worker(endpoint_name) from None
        if fault.status is RPCStatusCode.UNAVAILABLE:
            raise TemporalUnavailable(f"Temporal does not answer: {fault.message}") from None
        raise Refused(
            f"Temporal refused: {fault.message}", status=400, code=fault.status.name.lower()
        ) from None


def _no_worker(endpoint_name: str) -> TemporalUnavailable:
    return TemporalUnavailable(
        f"endpoint {endpoint_name} did not answer in time: is a Temporal worker (`stokerd worker`) running?"
    )
