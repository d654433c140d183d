"""Parsing of request bodies, with clear errors; fast for the hot path."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from pydantic import BaseModel, ValidationError

from stoker_wire.errors.problem import Problem, describe
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.strict_json import DEPTH_MAX, is_too_deep
from stoker_wire.route import AFFINITY_CHARS_MAX, COST_MAX, DEFAULT_COST, RouteRequest
from webserver.request_checks import reject_oversized_body

BODY_SECONDS: web.AppKey[float] = web.AppKey("body_seconds", float)

Model = TypeVar("Model", bound=BaseModel)


class FastRouteRequest(msgspec.Struct, gc=False):
    """`stoker_wire.route.RouteRequest` for the hot path. The slow path parses rejected bodies again."""

    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    api_key: str = ""
    cost: Annotated[float, msgspec.Meta(ge=0, le=COST_MAX)] = DEFAULT_COST
    request_idx: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    replay_timeout: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 60.0
    failed_url: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    unread: bool = False
    fingerprint: Annotated[str, msgspec.Meta(max_length=64)] = ""
    affinity: Annotated[str, msgspec.Meta(max_length=AFFINITY_CHARS_MAX)] = ""


_decoder = msgspec.json.Decoder(FastRouteRequest)


def parse_route(body: bytes) -> FastRouteRequest | RouteRequest:
    """A route request.

    Raises:
        Problem: 400 with the field, the expected and the received value.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse(RouteRequest, body)


def parse(model: type[Model], body: bytes) -> Model:
    """The body as a wire type.

    Raises:
        Problem: 400, not JSON or not of this type.
    """
    try:
        return model.model_validate(json_object(body))
    except ValidationError as fault:
        raise Problem(400, "invalid_args", describe(fault)) from None


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Some official calls send an empty body; it is read as an empty object.

    Raises:
        Problem: 400, malformed or not an object.
    """
    if not body.strip():
        return {}
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Problem(400, "malformed_json", f"the body is not valid JSON: {fault}") from None
    if is_too_deep(body, value):
        raise _too_deep()
    if not isinstance(value, dict):
        raise Problem(
            400,
            "malformed_json",
            f"the body must be a JSON object, for example {{}}, not {_json_kind(value)}",
        )
    return value


async def read_body(request: web.Request) -> bytes:
    """The request's body.

    Raises:
        Problem: 408, it did not arrive in time. 413, it is too large.
    """
    if request.content.is_eof():
        return await request.read()
    reject_oversized_body(request, request.client_max_size)
    async with bounded_arrival(request):
        return await request.read()


@contextlib.asynccontextmanager
async def bounded_arrival(request: web.Request) -> AsyncIterator[None]:
    """Bound the time in which a body may arrive, against slow senders."""
    seconds = request.app[BODY_SECONDS]
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"the body did not arrive within {seconds:g} s"
        raise Problem(408, "body_timeout", message, headers={"Connection": "close"}) from None


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's body as a JSON object."""
    return json_object(await read_body(request))


def path_id(request: web.Request) -> int:
    """The id in the path."""
    text = request.match_info["id"]
    number = read_id(text)
    if number is None:
        raise Problem(
            400, "invalid_args", f"the id in the path must be a positive integer, not {text[:40]!r}"
        )
    return number


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response. Its content type is exactly `application/json`, as the official CLI requires."""
    response = web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )
    if headers is not None and headers.get("Connection") == "close":
        response.force_close()  # aiohttp sends the header but would keep the connection open
    return response


def _too_deep() -> Problem:
    message = f"the body nests objects and lists more than {DEPTH_MAX} levels deep; send a flatter body"
    return Problem(400, "malformed_json", message)


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "something else")
