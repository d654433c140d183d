"""Bodies of calls that wait for a worker: unchanged bytes, bounded in sum and shared among accounts."""

import json
import re
from collections import Counter
from types import TracebackType
from typing import Any, Self

import msgspec

from engine.api.keys import text
from engine.api.route_api import Access
from engine.settings import Limits
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.request import Request
from stoker_wire.parsing.strict_json import NotJson, is_too_deep, parse_answer
from stoker_wire.security.fingerprint import fingerprint

_JSON = "application/json"
_DEFAULT_TYPES = frozenset(
    {"", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"}
)
"""Content types of clients that do not choose one: such a body is JSON if it looks like an object."""
_PART_HEAD_BYTES_MAX = 1024
_MODEL_PART = re.compile(rb'form-data; name="?model"?[;\r\n]|form-data; name="?model"?\Z')


class RequestBuffer:
    """Counts the bytes that all calls hold, because a limit per call alone would allow terabytes.

    Beyond its first body, an account's share may not exceed the bytes that are still free. So one account gets half of
    the buffer, two get a third each, and no account can fill it.
    """

    def __init__(self, limits: Limits) -> None:
        self.each_max = min(limits.openai_body_bytes_max, limits.openai_held_bytes_max)
        self._all_max = limits.openai_held_bytes_max
        self._held_by: Counter[str] = Counter()
        self.held = 0

    def __repr__(self) -> str:
        return f"<RequestBuffer {self.held} of {self._all_max} bytes, {len(self._held_by)} accounts>"

    def take(self, account: str, size: int, of_body: int) -> None:
        """Reserve `size` more bytes for a body of this account that already holds `of_body` bytes.

        Raises:
            Problem: 413, the body is too large; 429, the account's bodies together are; 503, all bodies together are.
        """
        if of_body + size > self.each_max:
            raise Problem(413, "body_too_large", f"the body is larger than {self.each_max} bytes")
        free = self._all_max - self.held - size
        if free < 0:
            said = (
                f"calls that wait for a worker hold {self.held} of {self._all_max} bytes, and this body does not fit in; "
                "try again in some seconds, or have engine.limits.openai_held_bytes_max raised"
            )
            raise Problem(503, "bodies_full", said, headers={"Retry-After": "5"})
        account_held = self._held_by[account]
        if account_held > of_body and account_held + size > free:
            said = (
                f"calls of this account that wait for a worker hold {account_held} bytes, and with this body they would hold "
                "more than they leave free for other accounts; try again in some seconds, or have "
                "engine.limits.openai_held_bytes_max raised"
            )
            raise Problem(429, "account_bodies_full", said, headers={"Retry-After": "5"})
        self.held += size
        self._held_by[account] += size

    def give(self, account: str, size: int) -> None:
        """Release bytes of this account."""
        self.held -= size
        self._held_by[account] -= size
        if not self._held_by[account]:
            del self._held_by[account]


class AccountBudget:
    """The budget of one call's body (`BodyBudget`): the bytes are its account's."""

    __slots__ = ("_account", "_bodies", "_taken", "access", "bytes_max")

    def __init__(self, bodies: RequestBuffer, account: str, access: Access | None = None) -> None:
        """`access`: of the call, where its head has already shown it."""
        self.access = access
        self._bodies = bodies
        self._account = account
        self._taken = 0
        self.bytes_max = bodies.each_max

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            Problem: 413; 429; 503.
        """
        self._bodies.take(self._account, size, self._taken)
        self._taken += size

    def give(self, size: int) -> None:
        """Release bytes."""
        self._bodies.give(self._account, size)
        self._taken -= size


class BufferedBody:
    """One call's body as bytes: parsed objects would take many times the memory."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._data = request.body
        kind = request.header(b"content-type")
        self.content_type = "" if kind is None else text(kind)
        """As it goes to a worker; empty: there is no body."""
        self.is_json = False
        self.size = len(self._data)

    def __repr__(self) -> str:
        return f"<BufferedBody {self.size} bytes>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def read(self) -> dict[str, Any] | None:
        """The object, if the body is a JSON object.

        Raises:
            Problem: 400, malformed JSON.
        """
        payload = self._read_json()
        self.size = len(self._data)
        return payload if isinstance(payload, dict) else None

    def _read_json(self) -> Any:
        """The value of a JSON body; None for other bodies, and for none at all."""
        kind = self.content_type.partition(";")[0].strip().lower()
        stripped = self._data.lstrip()
        if not stripped and (self._request.method != b"POST" or kind not in _DEFAULT_TYPES | {_JSON}):
            self.content_type = self.content_type if self._data else ""
            return None
        self.is_json = (
            kind == _JSON or kind.endswith("+json") or (kind in _DEFAULT_TYPES and stripped[:1] in b"{")
        )
        if not self.is_json:
            return None
        self._data = self._data if stripped else b"{}"
        self.content_type = self.content_type if kind not in _DEFAULT_TYPES else _JSON
        return _value(self._data)

    def rename_model(self, alias: str, name: str) -> bytes:
        """The body with the model's name in place of the alias; only called for bodies that name the alias."""
        if not self.is_json:
            at = _model_field(self._data, alias.encode())
            return b"".join((self._data[:at], name.encode(), self._data[at + len(alias.encode()) :]))
        try:
            fields = msgspec.json.decode(self._data, type=dict[str, msgspec.Raw])
            return msgspec.json.encode(fields | {"model": name})
        except (msgspec.DecodeError, UnicodeDecodeError):
            return json.dumps(_value(self._data) | {"model": name}).encode()

    def drop(self) -> None:
        """Release the bytes."""
        self._request.release_body()
        self._data = self._request.body = b""

    def fingerprint(self, path: str) -> str:
        """Equal for all copies of this call (`stoker_wire.security.fingerprint`)."""
        return fingerprint(path, self._data)

    def names_model(self, alias: str, payload: dict[str, Any] | None) -> bool:
        """Whether the request asks for the model of this name."""
        if payload is not None:
            return payload.get("model") == alias
        return self.content_type.startswith("multipart/") and _model_field(self._data, alias.encode()) >= 0

    @property
    def data(self) -> bytes:
        """The bytes as they came; an empty JSON body is an empty object."""
        return self._data


def envelope(route: dict[str, Any], payload: bytes) -> tuple[bytes, ...]:
    """The payload with its ticket, as JSON: what workers of the official package read."""
    return (
        b'{"auth_data":' + msgspec.json.encode(route) + b',"session_id":null,"payload":',
        payload,
        b"}",
    )


def _model_field(data: bytes, value: bytes) -> int:
    """Where a form contains this value of its field `model`; -1 if it does not. Takes linear time for any input."""
    at = data.find(b"\r\n\r\n" + value + b"\r\n--")
    while at >= 0:
        head = data[max(0, at - _PART_HEAD_BYTES_MAX) : at].rpartition(b"\r\n--")[2]
        if _MODEL_PART.search(head):
            return at + 4
        at = data.find(b"\r\n\r\n" + value + b"\r\n--", at + 1)
    return -1


def _value(data: bytes) -> Any:
    """The value of a JSON text, as tolerant as Python's reader, because the model server decides what it accepts.

    Raises:
        Problem: 400, malformed or nested too deeply.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = parse_answer(data)
        except NotJson as fault:
            raise Problem(400, "malformed_json", f"the body is not valid JSON: {fault}") from None
    if is_too_deep(data, value):
        raise Problem(400, "malformed_json", "the body nests objects and lists too deeply; send it flatter")
    return value
