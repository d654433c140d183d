"""The body that a worker receives: the authorisation from the route answer, and the payload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from stoker.errors import Invalid
from stoker.requests.request import Request

AUTH_HEADER = "X-Stoker-Auth"
"""Carries the route answer as compact JSON when the body is not JSON."""
SESSION_HEADER = "X-Stoker-Session"


def compact_json(value: Any) -> str:
    """JSON without blanks.

    Raises:
        Invalid: the value cannot be written as JSON.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as fault:
        raise Invalid(f"cannot send this as JSON: {fault}") from None


class Body(Protocol):
    """A body that is held in memory, so that a retry sends the same bytes."""

    @property
    def content_bytes(self) -> bytes:
        """The bytes that the model receives."""
        ...

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """The bytes and the headers, authorised by this route answer."""
        ...


@dataclass(frozen=True, slots=True)
class JsonBody:
    """The protocol's JSON envelope. The payload is encoded once for all attempts."""

    payload: str

    @property
    def content_bytes(self) -> bytes:
        """The payload's JSON."""
        return self.payload.encode()

    @classmethod
    def of(cls, payload: Any) -> JsonBody:
        """Encode a payload."""
        return cls(compact_json({} if payload is None else payload))

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """`{"auth_data": …, "session_id": …, "payload": …}`."""
        auth, session = compact_json(auth_data), compact_json(session_id)
        envelope = f'{{"auth_data":{auth},"session_id":{session},"payload":{self.payload}}}'
        return envelope.encode(), {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class RawBody:
    """Bytes that the model receives unchanged; the authorisation is in a header."""

    content: bytes
    content_type: str

    @property
    def content_bytes(self) -> bytes:
        """The bytes without a form's boundary, which is random for each copy."""
        _, marked, boundary = self.content_type.partition("boundary=")
        return self.content.replace(boundary.strip('"').encode(), b"") if marked else self.content

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """The bytes, and the headers."""
        headers = {"Content-Type": self.content_type, AUTH_HEADER: compact_json(auth_data)}
        if session_id is not None:
            headers[SESSION_HEADER] = session_id
        return self.content, headers


def make_body(request: Request) -> Body:
    """The body of a request: JSON `payload`, raw `content`, or a form of `files` and `data`.

    Raises:
        Invalid: more than one of the three, or a value that cannot be encoded.
    """
    content, content_type = request.content, request.content_type
    has_form = request.files is not None or request.data is not None
    if sum([request.payload is not None, content is not None, has_form]) > 1:
        raise Invalid("give one of payload (JSON), content (bytes), or files and data (a form), not several")
    if content is not None:
        if content_type is not None and not (content_type.isascii() and content_type.isprintable()):
            raise Invalid(f"the content type is {content_type!r:.80}; expected one like image/png")
        return RawBody(bytes(content), content_type or "application/octet-stream")
    if content_type is not None:
        raise Invalid("content_type goes with content=…; JSON and forms have their own")
    if has_form:
        try:
            # httpx serves as the multipart encoder only; this address is never called
            form = httpx.Request("POST", "http://form", files=request.files, data=request.data)
            return RawBody(form.read(), form.headers["Content-Type"])
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OSError) as fault:
            raise Invalid(f"cannot encode this form: {fault}") from None
    return JsonBody.of(request.payload)


def check_path(path: str) -> str:
    """The path of a worker's handler, checked.

    Raises:
        Invalid: not a plain absolute path.
    """
    plain = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
    if not plain or any(mark in path for mark in (" ", "?", "#", "\\")) or ".." in path.split("/"):
        raise Invalid(
            f"the route is {path!r:.200}; expected the path of a worker's handler, like /v1/completions"
        )
    return path
