"""Converts exceptions of handlers to problems: status, code and a message that says what to do."""

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from temporalio.client import (
    RPCTimeoutOrCancelledError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from engine.api.parsing import answer
from engine.proxy.errors import PREFIXES, dialect_of_door, error_body, logged_path
from stoker_wire.control import TASK_QUEUE
from stoker_wire.errors.problem import Problem

log = structlog.get_logger("engine.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HTTP_SENTENCES = {
    404: ("not_found", "no call has this path; engine and console paths end in a slash"),
    405: ("method_not_allowed", "this path does not support the method"),
    413: ("body_too_large", "the body is larger than this call accepts"),
    400: ("bad_request", "the request is not valid HTTP for this path"),
}


def problem_answer(request: web.Request, problem: Problem) -> web.Response:
    """The problem as a response, in the format that clients of this path read."""
    path = request.path
    body = error_body(problem, dialect_of_door(path)) if path.startswith(PREFIXES) else problem.body()
    return answer(body, problem.status, problem.headers or None)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert whatever a handler raises to a problem."""
    try:
        return await handler(request)
    except web.HTTPException as fault:
        if fault.status < 400:
            raise
        code, sentence = _HTTP_SENTENCES.get(fault.status, ("http_error", fault.reason))
        if request.path.startswith("/v1/"):
            sentence = "the base address of the OpenAI API is /openai/<name of the endpoint>/v1"
        headers = {"Allow": fault.headers["Allow"]} if "Allow" in fault.headers else None
        return problem_answer(request, Problem(fault.status, code, sentence, headers=headers))
    except Exception as fault:  # noqa: BLE001 - the last resort: log the bug and answer 500
        return problem_answer(request, problem_of(fault, request.path))


def problem_of(fault: Exception, path: str) -> Problem:
    """The problem for what a handler of this path raised."""
    match fault:
        case Problem():
            return fault
        case RPCError():
            return of_rpc(fault)
        case WorkflowUpdateFailedError():
            return of_update(fault)
        case WorkflowQueryFailedError() | WorkflowQueryRejectedError():
            log.error("query_failed", path=logged_path(path), error=type(fault).__name__)
            sentence = "the endpoint's workflow could not answer; see its page in Temporal"
            return Problem(502, "query_failed", sentence)
        case TimeoutError() | RPCTimeoutOrCancelledError():  # Temporal's client raises these on a timeout
            sentence = (
                "Temporal or its worker did not answer in time; the change may still happen, "
                "so check before you repeat it"
            )
            return Problem(503, "temporal_timeout", sentence, headers={"Retry-After": "2"})
        case ConnectionError() | web.RequestPayloadError():
            return _incomplete()
        case RuntimeError() if str(fault) == "Connection closed.":  # aiohttp: before the body was read
            return _incomplete()
        case RuntimeError() if str(fault).startswith("Failed client connect"):  # temporalio
            message = "Temporal cannot be reached now; try again"
            return Problem(503, "temporal_unavailable", message, headers={"Retry-After": "2"})
        case _:
            where = _where(fault)
            log.error("handler_failed", path=logged_path(path), error=type(fault).__name__, where=where)
            return Problem(500, "internal_error", f"internal error in {where}; see the engine's log")


def _incomplete() -> Problem:
    return Problem(400, "bad_request", "the connection was closed before the request was complete")


def of_rpc(fault: RPCError) -> Problem:
    """The problem for a failed call to Temporal."""
    if fault.status is RPCStatusCode.NOT_FOUND:
        return Problem(404, "no_such_endpoint", "the endpoint's workflow is closed; the endpoint is gone")
    if fault.status in {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
    }:
        return temporal_unavailable(fault.status.name)
    if fault.status is RPCStatusCode.FAILED_PRECONDITION:
        # A query without a worker: "no poller seen recently", or the workflow's first task is still open.
        log.warning("no_temporal_worker", error=fault.message[:300])
        return no_temporal_worker()
    log.error("temporal_refused", status=fault.status.name, error=fault.message[:300])
    message = (
        f"Temporal refused ({fault.status.name}); are the search attributes of temporal-dev.yaml registered?"
    )
    return Problem(502, "temporal_refused", message)


def temporal_unavailable(why: str) -> Problem:
    """The problem when Temporal itself does not answer."""
    message = f"Temporal cannot answer now ({why}); try again"
    return Problem(503, "temporal_unavailable", message, headers={"Retry-After": "2"})


def no_temporal_worker(waited_seconds: float | None = None) -> Problem:
    """The problem when no Temporal worker answers.

    Args:
        waited_seconds: how long the engine waited; None: no worker polls the task queue.
    """
    seen = (
        f"no Temporal worker polls the task queue {TASK_QUEUE!r}"
        if waited_seconds is None
        else f"no Temporal worker of the task queue {TASK_QUEUE!r} answered within {waited_seconds:g} s"
    )
    sentence = (
        f"{seen}: start `stokerd worker` (or `stokerd dev`) and try again; a pending change may be carried out then, "
        "so check before you repeat it"
    )
    return Problem(503, "no_temporal_worker", sentence, headers={"Retry-After": "5"})


def of_update(fault: WorkflowUpdateFailedError) -> Problem:
    """The problem for a change that the workflow's validator refused; nothing was changed."""
    cause = fault.cause
    message = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return Problem(400, "invalid_args", message[:1000])


def _where(fault: BaseException) -> str:
    trace = fault.__traceback__
    where = "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        where = f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return where
