"""`GET /openapi.json`: the worker's calls as an OpenAPI 3.1 document. Imported only when somebody asks for it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stoker_wire.openapi import ANY, Operation, Parameter, Reply, Said, Table, document, told

_ABOUT = (
    "Hands requests on to a model server and streams its answers back. A request carries the `/route/` answer that led "
    "here as `auth_data`, or its ticket in the header `X-Stoker-Auth` when the body is not JSON."
)

_EVERYWHERE = (400, 408, 413, 417, 431, 503, 505)

SECURITY: dict[str, dict[str, str]] = {
    "workerToken": {"type": "http", "scheme": "bearer", "description": "The MASTER_TOKEN of this worker"},
}


class AuthData(BaseModel):
    """The `/route/` answer, whole; what is read of it is typed."""

    model_config = ConfigDict(extra="allow")

    ticket: str = ""
    cost: float = 0.0
    reqnum: int = 0
    request_idx: int = 0
    endpoint: str = ""


class Envelope(BaseModel):
    """A JSON request: who may send it, and what the model gets."""

    auth_data: AuthData
    payload: Any
    session_id: str | None = None


class Opening(BaseModel):
    """How long a session lasts, and whom to tell when it ends."""

    lifetime: float = Field(60.0, gt=0)
    """Seconds; every request of the session adds as much again."""
    on_close_route: str | None = None
    """One of the worker's routes; what the payload weighs there must be within the session's cost."""
    on_close_payload: Any = None


class Creation(BaseModel):
    """Opens a session."""

    auth_data: AuthData
    payload: Opening | None = None


class Naming(BaseModel):
    """Names a session."""

    session_id: str
    session_auth: AuthData


class SessionMade(Said):
    """The session."""

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
    """It is over."""

    ended: Literal[True]
    removed_session: str


class SessionHealth(Said):
    """Whether it is open."""

    ok: bool


class Marked(Said):
    """It will be done."""

    ok: Literal[True]


class Draining(Said):
    """It takes nothing new."""

    ok: Literal[True]
    holding: int


class Status(BaseModel):
    """Everything the worker knows about itself."""

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
    """Whether it takes requests."""

    ready: bool
    draining: bool


def _ok(type_: Any, about: str = "Done", status: int = 200) -> dict[int, Reply]:
    return {status: Reply(about=about, type=type_)}


_BODY = (401, 408, 413, 422)
_TOKEN = ("workerToken",)

OWN: Table = {
    ("POST", "/session/create"): Operation(
        body=Creation, replies=_ok(SessionMade, "Open", 201), refuses=(*_BODY, 429, 503)
    ),
    ("POST", "/session/get"): Operation(body=Naming, replies=_ok(SessionRecord), refuses=(400, *_BODY)),
    ("POST", "/session/end"): Operation(body=Naming, replies=_ok(SessionEnded), refuses=(400, *_BODY)),
    ("POST", "/session/health"): Operation(body=Naming, replies=_ok(SessionHealth), refuses=_BODY),
    ("POST", "/pyworker/update"): Operation(security=_TOKEN, replies=_ok(Marked), refuses=(401, 500)),
    ("POST", "/pyworker/drain"): Operation(security=_TOKEN, replies=_ok(Draining), refuses=(401,)),
    ("GET", "/pyworker/status"): Operation(security=_TOKEN, replies=_ok(Status), refuses=(401,)),
    ("GET", "/healthz"): Operation(
        replies={
            200: Reply(about="Takes requests", type=Health),
            503: Reply(about="Takes none", type=Health),
        }
    ),
    ("GET", "/openapi.json"): Operation(replies=_ok(dict[str, Any], "This document")),
}
"""The worker's own calls. Every route of `admin` stands here, and nothing else (held by a test)."""

PROXIED = Operation(
    tag="model",
    body=Envelope,
    parameters=(
        Parameter(name="X-Stoker-Auth", about="The ticket, when the body is not JSON", where="header"),
        Parameter(name="X-Stoker-Session", about="A session's id, when the body is not JSON", where="header"),
    ),
    replies={ANY: Reply(about="The model's own answer, with its own status", content_type="*/*")},
    refuses=(400, 401, 403, 408, 410, 413, 422, 429, 500, 502, 503, 504),
)
"""A route of the user's."""


def made(version: str, routes: list[str], own: list[tuple[str, str, str | None]]) -> dict[str, Any]:
    """The document: the user's routes first, as they win over the worker's own."""
    table = {**{("POST", route): PROXIED for route in routes}, **told(OWN, own)}
    return document("stoker worker", version, _ABOUT, table, security=SECURITY, everywhere=_EVERYWHERE)
