"""HTTP middlewares and helpers: authentication, request bodies, JSON responses, problems, injected faults."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from hosts.faults import FaultKind
from hosts.host import Host
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.strict_json import NotJson, parse_json

log = structlog.get_logger(__name__)

HOST: web.AppKey[Host] = web.AppKey("host", Host)
BODY_BYTES_MAX = 1_000_000
BODY_SECONDS_MAX = 30.0
OPEN_PATHS = ("/healthz", "/metrics", "/openapi.json", "/host/logs/")
"""Paths that need no key. A log address contains its own secret, as in the hosted API."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Model = TypeVar("Model", bound=BaseModel)


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response with exactly `application/json`: official clients refuse a charset."""
    response = web.Response(
        body=json.dumps(body).encode(),
        status=status,
        headers={**(headers or {}), "Content-Type": "application/json"},
    )
    if headers is not None and headers.get("Connection") == "close":
        response.force_close()  # the header alone does not make aiohttp close the connection
    return response


def problem_response(problem: Problem) -> web.Response:
    """A problem as a response."""
    return json_response(problem.body(), status=problem.status, headers=problem.headers)


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object. Raises Problem."""
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            raw = await request.read()
    except TimeoutError:
        reason = f"the body did not arrive within {BODY_SECONDS_MAX:g} s"
        raise Problem(408, "body_timeout", reason, headers={"Connection": "close"}) from None
    if not raw.strip():
        return {}
    try:
        body = parse_json(raw)
    except NotJson as fault:
        raise Problem(400, "invalid_args", f"the body is not JSON, send a JSON object: {fault}") from None
    if not isinstance(body, dict):
        raise Problem(400, "invalid_args", f"expected a JSON object, got {type(body).__name__}")
    return body


async def read_model(request: web.Request, model: type[Model]) -> Model:
    """The validated body. Raises Problem 400 that names the field; it never contains values of variables."""
    body = await read_object(request)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        secret = any(part in ("env", "onstart", "args") for fault in error.errors() for part in fault["loc"])
        sentence = _describe_without_values(error) if secret else describe(error)
        raise Problem(400, "invalid_args", sentence) from None


def _describe_without_values(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'][:1])}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    )


def read_json_query(request: web.Request, name: str) -> Any:
    """The value of a query parameter in JSON; None if absent. Raises Problem."""
    text = request.query.get(name)
    if not text:
        return None
    try:
        return parse_json(text)
    except NotJson as fault:
        raise Problem(400, "invalid_args", f"{name} is not JSON: {fault}") from None


def host_of(request: web.Request) -> Host:
    """The marketplace that serves the request."""
    return request.app[HOST]


def path_id(request: web.Request) -> int:
    """The `{id}` of the path. Raises Problem."""
    text = request.match_info["id"]
    number = read_id(text)
    if number is None:
        raise Problem(
            400, "invalid_args", f"the id in the path must be a whole number in digits, not {text[:40]!r}"
        )
    return number


@web.middleware
async def problem_responses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem; internal errors are logged and not shown."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except web.HTTPRequestEntityTooLarge:
        return problem_response(Problem(413, "body_too_large", f"the body is over {BODY_BYTES_MAX} bytes"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem_response(
            Problem(
                405,
                "method_not_allowed",
                f"{request.method} is not allowed here: use {allowed}",
                headers={"Allow": allowed},
            )
        )
    except web.HTTPNotFound:
        return problem_response(Problem(404, "not_found", f"there is no route {request.path}"))
    except web.HTTPException as error:
        return problem_response(Problem(error.status, "bad_request", error.reason))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except web.RequestPayloadError:
        return problem_response(Problem(400, "bad_request", "the request is incomplete"))
    except Exception as error:  # noqa: BLE001  one request's internal error must not stop the server
        log.error("request_failed", path=request.path, error=type(error).__name__, reason=str(error)[:200])
        return problem_response(Problem(500, "internal_error", "the marketplace failed: see its log"))


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the key in the Authorization header or `?api_key=`. An instance's key is valid for that instance only."""
    if request.path.startswith(OPEN_PATHS):
        return await handler(request)
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else ""
    # Headers may contain bytes that are not text; such a key is wrong, not an error.
    key = (given or request.query.get("api_key", "")).encode("utf-8", "surrogateescape")
    host = request.app[HOST]
    if any(hmac.compare_digest(key, known.get_secret_value().encode()) for known in host.settings.api_keys):
        return await handler(request)
    instance_id = read_id(request.match_info.get("id", ""))
    if "/instances/" in request.path and instance_id is not None:
        own = host.instances.get(instance_id)
        if own is not None and key and hmac.compare_digest(key, own.record.api_key.encode()):
            return await handler(request)
    raise Problem(401, "auth_error", "the API key is missing or unknown: send Authorization: Bearer <key>")


@web.middleware
async def inject_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Apply the armed faults that concern a call as a whole."""
    if not request.path.startswith("/api/"):
        return await handler(request)
    faults = request.app[HOST].faults
    facts = {"path": request.path, "method": request.method}
    if limited := faults.take(FaultKind.RATE_LIMITED, **facts):
        seconds = limited.retry_after_s
        headers = {} if seconds is None else {"Retry-After": f"{seconds:g}"}
        raise Problem(429, "too_many_requests", "too many requests: slow down", headers=headers)
    if faults.take(FaultKind.SERVER_ERROR, **facts):
        raise Problem(500, "internal_error", "fault injected")
    response = await handler(request)
    creating = request.method == "PUT" and request.path.startswith("/api/v0/asks/")
    if _loses_answer(request, creating) and request.transport is not None:
        request.transport.abort()
    return response


def _loses_answer(request: web.Request, creating: bool) -> bool:
    """A `lost_answer` fault without a path applies to create calls."""
    faults = request.app[HOST].faults
    applies = any(
        fault.fault is FaultKind.LOST_ANSWER and (fault.path or creating) for fault in faults.armed()
    )
    return (
        applies and faults.take(FaultKind.LOST_ANSWER, path=request.path, method=request.method) is not None
    )
