"""The worker's OpenAPI 3.1 document: bodies and replies of its own calls, and the document itself.

The schemas are built with the document: a worker starts without them.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_wire.http.openapi import ANY, Operation, Parameter, Reply, Said, document, operations_of

_ABOUT = (
    "Forwards requests to a model server and streams its responses. A request carries the answer of `/route/` as "
    "`auth_data`, or its ticket in the header `X-Stoker-Auth` if the body is not JSON."
)

_EVERYWHERE = (400, 408, 413, 417, 431, 503, 505)

SECURITY: dict[str, dict[str, str]] = {
    "workerToken": {"type": "http", "scheme": "bearer", "description": "The MASTER_TOKEN of this worker"},
}


class _Body(BaseModel):
    """Base of request bodies; the schema is built with the document."""

    model_config = ConfigDict(defer_build=True)


class AuthData(_Body, extra="allow"):
    """The complete answer of `/route/`. The worker reads the typed fields."""

    ticket: str = ""
    cost: float = 0.0
    reqnum: int = 0
    request_idx: int = 0
    endpoint: str = ""


class Envelope(_Body):
    """A JSON request: its authorization, and the payload for the model."""

    auth_data: AuthData
    payload: Any
    session_id: str | None = None


class SessionOptions(_Body):
    """The lifetime of a session, and the request at its end."""

    lifetime: float = Field(60.0, gt=0)
    """Seconds. Every request of the session extends it by the same time."""
    on_close_route: str | None = None
    """A route of this worker. The workload of the payload must be within the session's cost."""
    on_close_payload: Any = None


class CreateSession(_Body):
    """Opens a session."""

    auth_data: AuthData
    payload: SessionOptions | None = None


class SessionReference(_Body):
    """Names a session."""

    session_id: str
    session_auth: AuthData


class SessionCreated(Said):
    """The new session."""

    session_id: str
    expiration: float


class SessionRecord(Said):
    """The session as it was opened."""

    session_id: str
    auth_data: dict[str, Any]
    lifetime: float
    expiration: float
    created_at: float
    on_close_route: str | None
    on_close_payload: Any


class SessionEnded(Said):
    """The session has ended."""

    ended: Literal[True]
    removed_session: str


class SessionHealth(Said):
    """Whether the session is open."""

    ok: bool


class Job(Said):
    """A job of one ticket."""

    begun: bool
    """False: no call was made yet."""
    calls: int
    calls_max: int
    running: int
    cost: float
    """Workload that the ticket allows."""
    used: float
    """Workload of its calls so far."""
    settled: bool
    """It no longer counts as load, and takes only calls without workload."""
    ends_in_seconds: float
    ended: bool


class Updating(Said):
    """The worker drains for an update."""

    ok: Literal[True]


class Draining(Said):
    """The worker refuses new requests."""

    ok: Literal[True]
    holding: int


class Status(_Body):
    """The state of the worker."""

    version: str
    ready: bool
    draining: bool
    error: str
    perf: float
    load: float
    requests_held: int
    requests_queued: int
    requests_received: int
    sessions: int


class Health(Said):
    """Whether the worker accepts requests."""

    ready: bool
    draining: bool


BODY = (401, 408, 413, 422)
"""Refusals of a call with a body."""
TOKEN = ("workerToken",)


def ok(body: Any, about: str = "Done", status: int = 200) -> dict[int, Reply]:
    """A JSON reply."""
    return {status: Reply(about=about, type=body)}


PROXIED = Operation(
    tag="model",
    body=Envelope,
    parameters=(
        Parameter(name="X-Stoker-Auth", about="The ticket, if the body is not JSON", where="header"),
        Parameter(
            name="X-Stoker-Session", about="The id of a session, if the body is not JSON", where="header"
        ),
    ),
    replies={ANY: Reply(about="The model's response, with its own status", content_type="*/*")},
    refuses=(400, 401, 403, 408, 410, 413, 422, 429, 500, 502, 503, 504),
)
"""A configured route."""


def _template(route: str) -> str:
    return route.replace(":path}", "}")


def _operation(method: str, route: PreparedRoute) -> Operation:
    if route.websocket:
        about = "Opens a WebSocket; the ticket may be a subprotocol `stoker.ticket.<ticket>`"
        return replace(PROXIED, body=None, replies={101: Reply(about=about, content_type="")})
    return PROXIED if method == "POST" else replace(PROXIED, body=None)


def build_document(
    version: str,
    routes: Iterable[tuple[str, PreparedRoute]],
    management: Iterable[tuple[str, str, object]],
) -> dict[str, Any]:
    """The document of the configured `routes` by method, and of the `management` calls (method, path, handler)."""
    table = {(method, _template(route.config.route)): _operation(method, route) for method, route in routes}
    table |= operations_of(management)
    return document("stoker worker", version, _ABOUT, table, security=SECURITY, everywhere=_EVERYWHERE)
