"""Parses a client's request: `{"auth_data", "session_id", "payload"}` around a JSON payload, or a raw body.

The payload stays bytes. It is decoded only for a user hook, and encoded only if a hook changed it.

A body that is not JSON (multipart, audio, an image) cannot contain `auth_data`. Then the header `X-Stoker-Auth`
holds the route answer as JSON, or only its ticket, and `X-Stoker-Session` the id of a session.
"""

from typing import Any

import msgspec

from stoker_wire.errors.problem import Problem
from stoker_wire.http.websocket import TICKET_PROTOCOL, split_protocols
from stoker_wire.http1.request import Request
from stoker_wire.parsing.strict_json import DEPTH_MAX, is_too_deep

AUTH_HEADER = b"x-stoker-auth"
SESSION_HEADER = b"x-stoker-session"

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of JSON decoding."""


class AuthData(msgspec.Struct):
    """The fields of the route answer that the worker reads. Other fields are ignored."""

    ticket: str = ""
    cost: float = 0.0
    reqnum: int = 0
    request_idx: int = 0
    endpoint: str = ""


class Envelope(msgspec.Struct):
    """The body of a JSON request."""

    auth_data: AuthData
    payload: msgspec.Raw
    session_id: str | None = None


class ParsedRequest:
    """The parts of a request, from either form."""

    __slots__ = ("auth", "body", "content_type", "has_body", "is_json", "session_id")

    def __init__(
        self,
        auth: AuthData,
        session_id: str | None,
        body: bytes | memoryview,
        content_type: bytes,
        *,
        is_json: bool,
    ) -> None:
        self.auth = auth
        self.session_id = session_id
        self.body = body
        self.content_type = content_type
        self.is_json = is_json
        self.has_body = True
        """False: the request has no body, and its method needs none."""


_JSON = b"application/json"
_METHODS_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_envelope = msgspec.json.Decoder(Envelope)
_auth = msgspec.json.Decoder(AuthData)


def parse(request: Request) -> ParsedRequest:
    """The request's parts.

    Raises:
        Problem: 422 if the body is not the envelope, 401 if a raw body has no `X-Stoker-Auth`.
    """
    if request.method != b"POST" or request.ticket:
        return _any_method(request)
    header = content_type = None
    for name, value in request.headers:
        if name == AUTH_HEADER:
            header = value
        elif name == b"content-type":
            content_type = value
    if header is not None:
        return _raw(request, header, content_type or b"application/octet-stream")
    if content_type is not None and not _is_json(content_type):
        raise Problem(
            401,
            "auth_missing",
            "a body that is not JSON needs the header X-Stoker-Auth with the ticket of the /route/ answer",
        )
    try:
        envelope = _envelope.decode(request.body)
    except NOT_JSON as fault:
        raise envelope_problem(fault) from None
    # The payload is a view of the body, not a copy.
    return ParsedRequest(
        envelope.auth_data, envelope.session_id, memoryview(envelope.payload), _JSON, is_json=True
    )


def _any_method(request: Request) -> ParsedRequest:
    """A request whose ticket is in the path, in `X-Stoker-Auth` or among the subprotocols of a WebSocket."""
    header = request.ticket.encode("latin-1") or request.header(AUTH_HEADER)
    if not header and request.websocket:
        header = websocket_protocols(request)[1].encode("latin-1")
    if not header:
        message = "send the ticket of the /route/ answer in the header X-Stoker-Auth"
        raise Problem(401, "auth_missing", message)
    content_type = request.header(b"content-type")
    parsed = _raw(request, header, content_type or b"application/octet-stream")
    parsed.has_body = bool(request.body) or request.method in _METHODS_WITH_BODY
    return parsed


def websocket_protocols(request: Request) -> tuple[list[str], str]:
    """The offered subprotocols for the model server, and the ticket among them; "" without one."""
    offers = [value.decode("latin-1") for name, value in request.headers if name == b"sec-websocket-protocol"]
    return split_protocols(offers, TICKET_PROTOCOL)


def decode_json(body: bytes | memoryview) -> Any:
    """The JSON value of a request's body or payload.

    Raises:
        Problem: 422, it is not JSON, or is nested too deeply.
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except NOT_JSON as fault:
        raise Problem(422, "payload_invalid", f"the payload is not valid JSON: {fault}") from None
    if is_too_deep(body, value):
        raise _too_deep()
    return value


def _too_deep() -> Problem:
    message = f"the JSON is nested more than {DEPTH_MAX} levels deep; send it flatter"
    return Problem(422, "payload_invalid", message)


def envelope_problem(fault: Exception) -> Problem:
    """The problem of a body that is not the envelope."""
    what = "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
    return Problem(
        422,
        "envelope_invalid",
        f'the body must be {{"auth_data": <the /route/ answer>, "payload": {{…}}}}: {what}',
    )


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    # curl and some HTTP libraries default to form and text types.
    return kind in (_JSON, b"application/x-www-form-urlencoded", b"text/plain") or kind.endswith(b"+json")


def _raw(request: Request, header: bytes, content_type: bytes) -> ParsedRequest:
    if header.lstrip().startswith(b"{"):
        try:
            auth = _auth.decode(header)
        except NOT_JSON as fault:
            problem = f"X-Stoker-Auth must be the /route/ answer as JSON, or its ticket: {fault}"
            raise Problem(422, "auth_invalid", problem) from None
    else:
        auth = AuthData(ticket=header.decode("latin-1").strip())
    session = request.header(SESSION_HEADER)
    session_id = None if session is None else session.decode("latin-1").strip()
    kind = content_type.partition(b";")[0].strip().lower()
    return ParsedRequest(
        auth, session_id, request.body, content_type, is_json=kind == _JSON or kind.endswith(b"+json")
    )
