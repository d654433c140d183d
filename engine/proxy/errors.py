"""Errors of the model APIs in the shape that the clients of the called API read."""

import json
from typing import Any

from engine.proxy.dialects import Dialect, dialect_of
from stoker_wire.errors.problem import Problem

PREFIX = "/openai/"
PREFIXES = (PREFIX, "/v1/")
"""Paths whose errors have this shape."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_TYPE_CHARS = 499


JOBS = "/job/"


def logged_path(path: str) -> str:
    """The path for logs: without the ticket of a job."""
    if not path.startswith(JOBS):
        return path
    endpoint, _, rest = path.removeprefix(JOBS).partition("/")
    return f"{JOBS}{endpoint}/***/{rest.partition('/')[2]}"


def error_body(problem: Problem, dialect: Dialect) -> dict[str, Any]:
    """`{"error": {"message", "type", "code", "param"}}`; for Ollama's clients `{"error": message}`."""
    if dialect is Dialect.OLLAMA:
        return {"error": problem.message, "code": problem.code}
    kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    error = {"message": problem.message, "type": kind, "code": problem.code, "param": None}
    return {"type": "error", "error": error} if dialect is Dialect.ANTHROPIC else {"error": error}


def dialect_of_door(path: str) -> Dialect:
    """The dialect of a path of the engine, `/openai/<endpoint>/…` or `/v1/…`."""
    return dialect_of("/" + path[len(PREFIX) :].partition("/")[2] if path.startswith(PREFIX) else path)


def read_problem(status: int, body: bytes) -> Problem | None:
    """The problem that a worker of stoker answered by itself; None: the body is something else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("success") is not False:
        return None
    code, message = value.get("error"), value.get("msg")
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    return Problem(status, code[:_TYPE_CHARS], message[:_TYPE_CHARS])
