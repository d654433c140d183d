"""What a client sends: `{"auth_data", "session_id", "payload"}` around a JSON payload, or a raw body with a header.

The payload stays bytes: it is decoded only when a hook of the user's needs it, and encoded only when a hook changed it.

A body that is not JSON (multipart, audio, an image) cannot carry `auth_data`. It comes as it is, and the header
`X-Stoker-Auth` brings the route answer as JSON, or only its ticket; `X-Stoker-Session` a session's id.
"""

from typing import Any

import msgspec

from stoker_pyworker.http.request import Request
from stoker_wire.parsing.strict_json import DEPTH_MAX, is_too_deep
from stoker_wire.problem import Problem

AUTH_HEADER = b"x-stoker-auth"
SESSION_HEADER = b"x-stoker-session"

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: bytes that are not UTF-8 have an error of their own."""


class AuthData(msgspec.Struct):
    """What of the route answer the worker reads; more may come, and is ignored."""

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


class Asked:
    """A request as the proxy sees it, from either form."""

    __slots__ = ("auth", "body", "content_type", "is_json", "session_id")

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


_JSON = b"application/json"
_envelope = msgspec.json.Decoder(Envelope)
_auth = msgspec.json.Decoder(AuthData)


def read(request: Request) -> Asked:
    """The request's parts.

    Raises:
        Problem: 422 when the body is not the envelope, 401 when a raw body comes without `X-Stoker-Auth`.
    """
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
        raise not_an_envelope(fault) from None
    # Decoded from a view of the body: the payload is not copied.
    return Asked(envelope.auth_data, envelope.session_id, memoryview(envelope.payload), _JSON, is_json=True)


def decoded(body: bytes | memoryview) -> Any:
    """The JSON value of a request's body or payload.

    Raises:
        Problem: 422, it is not JSON, or its nesting is too deep.
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
    said = f"the JSON nests objects and lists over {DEPTH_MAX} deep; send it flatter"
    return Problem(422, "payload_invalid", said)


def not_an_envelope(fault: Exception) -> Problem:
    """A body that is not what was expected: what, where, and the shape to send."""
    what = "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
    return Problem(
        422,
        "envelope_invalid",
        f'the body must be {{"auth_data": <the /route/ answer>, "payload": {{…}}}}: {what}',
    )


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    # curl says so when nobody tells it otherwise.
    return kind in (_JSON, b"application/x-www-form-urlencoded", b"text/plain") or kind.endswith(b"+json")


def _raw(request: Request, header: bytes, content_type: bytes) -> Asked:
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
    return Asked(
        auth, session_id, request.body, content_type, is_json=kind == _JSON or kind.endswith(b"+json")
    )
