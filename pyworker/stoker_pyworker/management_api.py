"""The worker's own routes: sessions, drain, update, status, health and OpenAPI."""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from stoker_pyworker import openapi as shapes
from stoker_pyworker.openapi import BODY, TOKEN, ok
from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.request_envelope import AuthData
from stoker_pyworker.proxy.request_proxy import RequestProxy
from stoker_pyworker.proxy.routes import PreparedRoute, method_problem
from stoker_pyworker.proxy.sessions import Session, SessionReference, new_session_id
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Reply, declared_calls, handles
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle

log = structlog.get_logger(component="management")

UPDATE_FILE = ".force_update"
JOB = "/pyworker/job/{ticket}"
_SESSION_BYTES_MAX = 1024 * 1024

Handler = Callable[[Request, ResponseCycle], None]
_T = TypeVar("_T")


class _CreateSession(msgspec.Struct):
    """Body of `/session/create`."""

    auth_data: dict[str, Any]
    payload: Any = None


class ManagementApi:
    """Answers without contacting the model server."""

    def __init__(
        self,
        proxy: RequestProxy,
        *,
        token: str,
        directory: Path,
        drain: Callable[[str], None],
        status: Callable[[], dict[str, Any]],
        version: str,
    ) -> None:
        self._proxy = proxy
        self._token = token
        self._directory = directory
        self._drain = drain
        self._status = status
        self._version = version
        self._document = b""
        self.calls = tuple(declared_calls(self))
        """Method, path and handler of each call."""
        self.routes: dict[bytes, tuple[bytes, Handler]] = {
            path.encode(): (method.encode(), handler) for method, path, handler in self.calls if path != JOB
        }

    # --- sessions

    @handles(
        "POST /session/create",
        body=shapes.CreateSession,
        replies=ok(shapes.SessionCreated, "Open", 201),
        refuses=(*BODY, 429, 503),
    )
    def session_create(self, request: Request, cycle: ResponseCycle) -> None:
        """Open a session. It needs a ticket like any request."""
        if len(request.body) > _SESSION_BYTES_MAX:
            message = (
                f"the body is over {_SESSION_BYTES_MAX} bytes, and stays in memory while the session lasts"
            )
            raise Problem(413, "session_too_large", message)
        creation = _read(request, _CreateSession)
        try:
            auth = msgspec.convert(creation.auth_data, AuthData)
        except msgspec.ValidationError as fault:
            raise request_envelope.envelope_problem(fault) from None
        proxy = self._proxy
        ticket, work = proxy.authorize(auth)
        work.is_session = True
        session_id = new_session_id()
        try:
            proxy.check_ready()
            options = proxy.sessions.parse_options(creation.payload)
            on_close = proxy.on_close_call(options, session_id, ticket, work)
        except Problem:
            proxy.counts.reject(work)
            raise
        proxy.use_ticket(ticket)
        session = Session(session_id, options, creation.auth_data, work, on_close)
        proxy.sessions.open(session)
        _respond(cycle, {"session_id": session.id, "expiration": session.expires_at}, status=201)

    @handles(
        "POST /session/get",
        body=shapes.SessionReference,
        replies=ok(shapes.SessionRecord),
        refuses=(400, *BODY),
    )
    def session_get(self, request: Request, cycle: ResponseCycle) -> None:
        """Read a session."""
        _respond(cycle, self._session(request).record())

    @handles(
        "POST /session/end",
        body=shapes.SessionReference,
        replies=ok(shapes.SessionEnded),
        refuses=(400, *BODY),
    )
    def session_end(self, request: Request, cycle: ResponseCycle) -> None:
        """End a session."""
        session = self._session(request)
        self._proxy.sessions.end(session)
        _respond(cycle, {"ended": True, "removed_session": session.id})

    @handles(
        "POST /session/health",
        body=shapes.SessionReference,
        replies=ok(shapes.SessionHealth),
        refuses=BODY,
    )
    def session_health(self, request: Request, cycle: ResponseCycle) -> None:
        """Tell whether a session is open."""
        try:
            self._session(request)
        except Problem as problem:
            if problem.status != 400:
                raise
            _respond(cycle, {"ok": False})
            return
        _respond(cycle, {"ok": True})

    def _session(self, request: Request) -> Session:
        return self._proxy.sessions.find(_read(request, SessionReference))

    # --- jobs

    @handles(f"GET {JOB}", f"DELETE {JOB}", replies=ok(shapes.Job), refuses=(401, 410))
    def job(self, request: Request, cycle: ResponseCycle) -> None:
        """Read or end the job of the ticket in the path."""
        if request.method not in (b"GET", b"HEAD", b"DELETE"):
            raise method_problem("GET", "HEAD", "DELETE")
        ends = request.method == b"DELETE"
        _respond(cycle, self._proxy.read_job(request.ticket, end=ends) | {"ended": ends})

    # --- operation

    @handles("POST /pyworker/update", security=TOKEN, replies=ok(shapes.Updating), refuses=(401, 500))
    def update(self, request: Request, cycle: ResponseCycle) -> None:
        """Drain for a rolling update, and leave the file that makes the start script start again."""
        self._authorize(request)
        try:
            (self._directory / UPDATE_FILE).touch()
        except OSError as fault:
            raise Problem(500, "update_not_marked", f"{UPDATE_FILE} cannot be written: {fault}") from None
        self._drain("update")
        _respond(cycle, {"ok": True})

    @handles("POST /pyworker/drain", security=TOKEN, replies=ok(shapes.Draining), refuses=(401,))
    def drain(self, request: Request, cycle: ResponseCycle) -> None:
        """Finish the running requests, refuse new ones, then end the process."""
        self._authorize(request)
        self._drain("requested")
        _respond(cycle, {"ok": True, "holding": self._proxy.counts.held})

    @handles("GET /pyworker/status", security=TOKEN, replies=ok(shapes.Status), refuses=(401,))
    def status(self, request: Request, cycle: ResponseCycle) -> None:
        """Read the worker's state."""
        self._authorize(request)
        _respond(cycle, self._status())

    @handles(
        "GET /healthz",
        replies={
            200: Reply(about="Accepts requests", type=shapes.Health),
            503: Reply(about="Refuses requests", type=shapes.Health),
        },
    )
    def health(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer 200 while the worker accepts requests, else 503."""
        health = self._proxy.health
        ready = health.refusal is None and not health.error
        _respond(cycle, {"ready": ready, "draining": health.draining}, status=200 if ready else 503)

    @handles("GET /openapi.json", replies=ok(dict[str, Any], "This document"))
    def openapi(self, request: Request, cycle: ResponseCycle) -> None:
        """Read this document."""
        if not self._document:
            self._document = msgspec.json.encode(self.openapi_document())
        cycle.respond(200, self._document)

    def openapi_document(self) -> dict[str, Any]:
        """The OpenAPI document of this worker."""
        routes = [(method, route) for route in self._proxy.routes for method in _documented(route)]
        paths = self._proxy.routes.paths
        own = [each for each in self.calls if each[1].encode() not in paths]
        return shapes.build_document(self._version, routes, own)

    def _authorize(self, request: Request) -> None:
        given = (request.header(b"authorization") or b"").removeprefix(b"Bearer ").strip()
        if not self._token or not hmac.compare_digest(given, self._token.encode()):
            raise Problem(401, "token_wrong", "send Authorization: Bearer <the worker's MASTER_TOKEN>")


def _documented(route: PreparedRoute) -> tuple[str, ...]:
    return ("GET",) if route.websocket else route.methods


def _read(request: Request, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(request_envelope.decode_json(request.body), kind)
    except msgspec.ValidationError as fault:
        raise Problem(422, "body_invalid", f"the JSON body is not valid for this route: {fault}") from None


def _respond(cycle: ResponseCycle, body: dict[str, Any], *, status: int = 200) -> None:
    cycle.respond(status, msgspec.json.encode(body))
