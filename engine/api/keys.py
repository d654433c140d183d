"""Who calls: a key from header, query or body, and what it opens.

An *account key* opens everything its account owns. An *endpoint key* routes requests of one endpoint, nothing else.
"""

import hashlib
import hmac
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from stoker_wire.problem import Problem


def presented(request: web.Request, body_key: object = None) -> Iterator[str]:
    """The keys that a call brings, in the order in which they count: header, query, body."""
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if key and scheme.lower() == "bearer":
        yield key.strip()
    if "api_key=" in request.query_string:
        yield request.query.get("api_key", "")
    if isinstance(body_key, str):
        yield body_key


def unauthorised() -> Problem:
    """The one answer to every bad key: which part of it was wrong is nobody's business."""
    return Problem(
        401,
        "auth_error",
        "Authentication failed: send a valid key as `Authorization: Bearer <key>`, as `?api_key=`, or as `api_key` in the body",
        headers={"WWW-Authenticate": "Bearer"},
    )


class Accounts:
    """The account keys of a deployment. Comparison takes the same time for every wrong key."""

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
            Problem: 401, no account key among those that the call brings.
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
    """A stable number for an account, because the official records carry one."""
    return zlib.crc32(owner.encode()) & 0x7FFF_FFFF


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
