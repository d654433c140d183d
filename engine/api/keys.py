"""Authentication of callers by a key in the header, the query or the body.

An *account key* gives access to everything that the account owns; an *endpoint key* only to routing on its endpoint.
"""

import hashlib
import hmac
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from stoker_wire.errors.problem import Problem
from stoker_wire.http.websocket import KEY_PROTOCOLS, split_protocols
from stoker_wire.http1.request import Request

_KEY_FIELDS = ("x-api-key", "api-key")
"""Where clients of Anthropic's and Azure's APIs put the key."""


def presented(request: web.Request | Request, body_key: object = None) -> Iterator[str]:
    """The keys of a call in the order of precedence: header, query, body.

    A page in a browser can set no header fields on a WebSocket, so its key may be among the offered subprotocols.
    """
    if isinstance(request, Request):
        yield from _in_head(request)
        if isinstance(body_key, str):
            yield body_key
        return
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if key and scheme.lower() == "bearer":
        yield key.strip()
    for name in _KEY_FIELDS:
        if name in request.headers:
            yield request.headers[name].strip()
    for name in request.headers.getall("Sec-WebSocket-Protocol", ()):
        yield split_protocols((name,), *KEY_PROTOCOLS)[1]
    if "api_key=" in request.query_string:
        yield request.query.get("api_key", "")
    if isinstance(body_key, str):
        yield body_key


def _in_head(request: Request) -> Iterator[str]:
    fields = request.headers
    for name, value in fields:
        if name == b"authorization":
            scheme, _, key = text(value).partition(" ")
            if key and scheme.lower() == "bearer":
                yield key.strip()
    for wanted in (b"x-api-key", b"api-key"):
        for name, value in fields:
            if name == wanted:
                yield text(value).strip()
                break
    for name, value in fields:
        if name == b"sec-websocket-protocol":
            yield split_protocols((text(value),), *KEY_PROTOCOLS)[1]
    if b"api_key=" in request.query:
        for part in text(request.query).split("&"):
            name_in_query, _, key = part.partition("=")
            if unquote_plus(name_in_query) == "api_key":
                yield unquote_plus(key)
                break


def text(value: bytes) -> str:
    """A header field's value as aiohttp reads it."""
    return value.decode("utf-8", "surrogateescape")


def unauthorised() -> Problem:
    """The problem for every invalid key. It does not reveal which part of the key was wrong."""
    return Problem(
        401,
        "auth_error",
        "Authentication failed: send a valid key as `Authorization: Bearer <key>`, as `?api_key=`, "
        "or as `api_key` in the body",
        headers={"WWW-Authenticate": "Bearer"},
    )


class Accounts:
    """The account keys of a deployment. Comparisons take the same time for every wrong key."""

    def __init__(self, accounts: Mapping[str, str], previous: Mapping[str, str] | None = None) -> None:
        keys = [*accounts.items(), *(previous or {}).items()]
        self._digests = [(name, _digest(key)) for name, key in keys]

    def __repr__(self) -> str:
        return f"<Accounts {', '.join(dict(self._digests))}>"

    def owner_of(self, key: str) -> str | None:
        """The account that the key belongs to."""
        if not key:
            return None
        digest = _digest(key)
        found = None
        for name, known in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def authenticate(self, request: web.Request, body: Any = None) -> str:
        """The calling account.

        Raises:
            Problem: 401, the call has no valid account key.
        """
        body_key = body.get("api_key") if isinstance(body, dict) else None
        for key in presented(request, body_key):
            owner = self.owner_of(key)
            if owner is not None:
                return owner
        raise unauthorised()


def same_key(known: bytes, presented_key: str) -> bool:
    """Whether the keys are equal, in constant time."""
    return hmac.compare_digest(known, presented_key.encode("utf-8", "surrogateescape"))


def user_id(owner: str) -> int:
    """A stable number for an account; the official records have this field."""
    return zlib.crc32(owner.encode()) & 0x7FFF_FFFF


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
