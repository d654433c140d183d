"""What is sent to a worker: the authorisation of the route answer, and the payload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from stoker.errors import Invalid

AUTH_HEADER = "X-Stoker-Auth"
"""Carries the route answer as compact JSON when the body is not JSON."""
SESSION_HEADER = "X-Stoker-Session"


def compact(value: Any) -> str:
    """JSON without blanks.

    Raises:
        Invalid: the value holds what JSON does not.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as fault:
        raise Invalid(f"cannot send this as JSON: {fault}") from None


class Body(Protocol):
    """A body that can be sent again: a retry sends the same bytes."""

    @property
    def content_bytes(self) -> bytes:
        """What the model gets."""
        ...

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """The bytes and the headers, authorised by this route answer."""
        ...


@dataclass(frozen=True, slots=True)
class JsonBody:
    """The envelope of the protocol; the payload is encoded once, however often it is sent."""

    payload: str

    @property
    def content_bytes(self) -> bytes:
        """The payload's JSON."""
        return self.payload.encode()

    @classmethod
    def of(cls, payload: Any) -> JsonBody:
        """Encode a payload."""
        return cls(compact({} if payload is None else payload))

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """`{"auth_data": …, "session_id": …, "payload": …}`."""
        envelope = f'{{"auth_data":{compact(auth_data)},"session_id":{compact(session_id)},"payload":{self.payload}}}'
        return envelope.encode(), {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class RawBody:
    """Bytes that go to the model as they are; the authorisation travels in a header."""

    content: bytes
    content_type: str

    @property
    def content_bytes(self) -> bytes:
        """The bytes; a form's boundary, which is drawn anew for each copy, is left out."""
        _, marked, boundary = self.content_type.partition("boundary=")
        return self.content.replace(boundary.strip('"').encode(), b"") if marked else self.content

    def render(self, auth_data: Mapping[str, Any], session_id: str | None) -> tuple[bytes, dict[str, str]]:
        """The bytes, and the headers beside them."""
        headers = {"Content-Type": self.content_type, AUTH_HEADER: compact(auth_data)}
        if session_id is not None:
            headers[SESSION_HEADER] = session_id
        return self.content, headers


def make_body(
    payload: Any,
    *,
    content: bytes | None = None,
    content_type: str | None = None,
    files: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Body:
    """The body for what the caller gave: JSON `payload`, raw `content`, or a form of `files` and `data`.

    A form is held in memory, so that a retry can send it again.

    Raises:
        Invalid: more than one of the three, or something that cannot be encoded.
    """
    kinds = [payload is not None, content is not None, files is not None or data is not None]
    if sum(kinds) > 1:
        raise Invalid("give one of payload (JSON), content (bytes), or files and data (a form), not several")
    if content is not None:
        if content_type is not None and not (content_type.isascii() and content_type.isprintable()):
            raise Invalid(f"the content type is {content_type!r:.80}; expected one like image/png")
        return RawBody(bytes(content), content_type or "application/octet-stream")
    if content_type is not None:
        raise Invalid("content_type goes with content=…; JSON and forms have their own")
    if files is not None or data is not None:
        try:
            # httpx is our multipart encoder; the address is never called. A form without files is a form all the same
            form = httpx.Request("POST", "http://form", files=files, data=data)
            return RawBody(form.read(), form.headers["Content-Type"])
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OSError) as fault:
            raise Invalid(f"cannot encode this form: {fault}") from None
    return JsonBody.of(payload)


def check_path(path: str) -> str:
    """A worker's route.

    Raises:
        Invalid: it is not a plain absolute path.
    """
    plain = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
    if not plain or any(mark in path for mark in (" ", "?", "#", "\\")) or ".." in path.split("/"):
        raise Invalid(
            f"the route is {path!r:.200}; expected the path of a worker's handler, like /v1/completions"
        )
    return path
