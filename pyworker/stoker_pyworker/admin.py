"""The worker's own routes: sessions, drain, update, health and status."""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.request import Request
from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.admission import RequestProxy
from stoker_pyworker.proxy.request_envelope import Asked, AuthData
from stoker_pyworker.proxy.sessions import Naming, Session, new_session_id
from stoker_wire.problem import Problem

log = structlog.get_logger(room="admin")

UPDATE_FILE = ".force_update"
_OPENING_BYTES_MAX = 1024 * 1024

Serve = Callable[[Request, ClientConnection], None]
_T = TypeVar("_T")


class _Creation(msgspec.Struct):
    """Body of `/session/create`."""

    auth_data: dict[str, Any]
    payload: Any = None


class Admin:
    """Answers at once; nothing here touches the model server."""

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
        self.routes: dict[bytes, tuple[bytes, Serve]] = {
            b"/session/create": (b"POST", self.session_create),
            b"/session/get": (b"POST", self.session_get),
            b"/session/end": (b"POST", self.session_end),
            b"/session/health": (b"POST", self.session_health),
            b"/pyworker/update": (b"POST", self.update),
            b"/pyworker/drain": (b"POST", self.drain),
            b"/pyworker/status": (b"GET", self.status),
            b"/healthz": (b"GET", self.health),
            b"/openapi.json": (b"GET", self.openapi),
        }

    # --- sessions

    def session_create(self, request: Request, client: ClientConnection) -> None:
        """Open a session; its ticket is checked and used up like any request's."""
        if len(request.body) > _OPENING_BYTES_MAX:
            message = (
                f"the opening is over {_OPENING_BYTES_MAX} bytes; it is held for as long as the session lasts"
            )
            raise Problem(413, "session_too_large", message)
        creation = _read(request, _Creation)
        try:
            auth = msgspec.convert(creation.auth_data, AuthData)
        except msgspec.ValidationError as fault:
            raise request_envelope.not_an_envelope(fault) from None
        proxy = self._proxy
        ticket, work = proxy.admission(Asked(auth, None, b"", b"", is_json=True))
        work.is_session = True
        session_id = new_session_id()
        try:
            proxy.check_open()
            opening = proxy.sessions.check_opening(creation.payload)
            closing = proxy.closing_call(opening, session_id, ticket, work)
        except Problem:
            proxy.ledger.reject(work)
            raise
        proxy.take(ticket, work, held=False)
        session = Session(session_id, opening, creation.auth_data, work, closing)
        proxy.sessions.open(session)
        _answer(client, {"session_id": session.id, "expiration": session.expires_at}, status=201)

    def session_get(self, request: Request, client: ClientConnection) -> None:
        """The session's record, for who opened it."""
        _answer(client, self._named(request).record())

    def session_end(self, request: Request, client: ClientConnection) -> None:
        """Close a session."""
        session = self._named(request)
        self._proxy.sessions.end(session)
        _answer(client, {"ended": True, "removed_session": session.id})

    def session_health(self, request: Request, client: ClientConnection) -> None:
        """Whether the session is open."""
        try:
            self._named(request)
        except Problem as problem:
            if problem.status != 400:
                raise
            _answer(client, {"ok": False})
            return
        _answer(client, {"ok": True})

    def _named(self, request: Request) -> Session:
        return self._proxy.sessions.find(_read(request, Naming))

    # --- the engine's and the operator's

    def update(self, request: Request, client: ClientConnection) -> None:
        """A rolling update: leave the mark that the start script looks for, then finish and go."""
        self._authorize(request)
        try:
            (self._directory / UPDATE_FILE).touch()
        except OSError as fault:
            raise Problem(500, "update_not_marked", f"{UPDATE_FILE} cannot be written: {fault}") from None
        self._drain("update")
        _answer(client, {"ok": True})

    def drain(self, request: Request, client: ClientConnection) -> None:
        """Finish what runs, take nothing new, end."""
        self._authorize(request)
        self._drain("asked to")
        _answer(client, {"ok": True, "holding": self._proxy.ledger.held})

    def status(self, request: Request, client: ClientConnection) -> None:
        """Everything the worker knows about itself."""
        self._authorize(request)
        _answer(client, self._status())

    def health(self, request: Request, client: ClientConnection) -> None:
        """200 while the worker takes requests, else 503; for load balancers and people."""
        standing = self._proxy.standing
        well = standing.refusal is None and not standing.error
        _answer(client, {"ready": well, "draining": standing.draining}, status=200 if well else 503)

    def openapi(self, request: Request, client: ClientConnection) -> None:
        """This document."""
        if not self._document:
            self._document = msgspec.json.encode(self.described())
        client.answer(200, self._document)

    def described(self) -> dict[str, Any]:
        """The OpenAPI document of what this worker serves."""
        from stoker_pyworker import openapi  # noqa: PLC0415 - its schemas are work that a worker seldom needs

        own = [
            (method.decode(), path.decode(), serve.__doc__)
            for path, (method, serve) in self.routes.items()
            if path not in self._proxy.routes
        ]
        routes = [path.decode() for path in self._proxy.routes]
        return openapi.made(self._version, routes, own)

    def _authorize(self, request: Request) -> None:
        given = (request.header(b"authorization") or b"").removeprefix(b"Bearer ").strip()
        if not self._token or not hmac.compare_digest(given, self._token.encode()):
            raise Problem(401, "token_wrong", "send Authorization: Bearer <the worker's MASTER_TOKEN>")


def _read(request: Request, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(request_envelope.decoded(request.body), kind)
    except msgspec.ValidationError as fault:
        raise Problem(422, "body_invalid", f"the JSON body is not what this route takes: {fault}") from None


def _answer(client: ClientConnection, body: dict[str, Any], *, status: int = 200) -> None:
    client.answer(status, msgspec.json.encode(body))
