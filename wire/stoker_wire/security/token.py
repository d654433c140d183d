"""Keys that any process can derive from the deployment's secret without a lookup.

* A *worker token* (`MASTER_TOKEN`, `mtoken`) says which endpoint and launch it was made for, and proves it:
  `<endpoint id>.<launch id>.<hmac>`.
* An *endpoint key* routes requests of one endpoint and does nothing else: `sk-ep-<endpoint id>-<version>-<hmac>`.
"""

import hashlib
import hmac
from typing import NamedTuple

_MAC_CHARS = 40
_ID_DIGITS_MAX = 19


def _bytes(text: str) -> bytes:
    """JSON can carry half of a surrogate pair; a forged token that does is refused like any other."""
    return text.encode("utf-8", "surrogatepass")


class WorkerIdentity(NamedTuple):
    """Who a worker token was made for."""

    endpoint_id: int
    launch_id: str


def _mac(secret: bytes, purpose: str, *parts: object) -> str:
    message = _bytes("\0".join([purpose, *map(str, parts)]))
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:_MAC_CHARS]


def mint_worker_token(secret: bytes, endpoint_id: int, launch_id: str) -> str:
    """The token that a worker is launched with."""
    return f"{endpoint_id}.{launch_id}.{_mac(secret, 'worker', endpoint_id, launch_id)}"


def read_worker_token(secret: bytes, token: str) -> WorkerIdentity | None:
    """Who the token was made for, or None if it was not made with this secret."""
    parts = token.split(".")
    if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit() or len(parts[0]) > _ID_DIGITS_MAX:
        return None
    identity = WorkerIdentity(int(parts[0]), parts[1])
    expected = mint_worker_token(secret, *identity)
    return identity if hmac.compare_digest(_bytes(expected), _bytes(token)) else None


def mint_endpoint_key(secret: bytes, endpoint_id: int, version: int) -> str:
    """The key that clients of one endpoint route with; a higher version replaces it."""
    return f"sk-ep-{endpoint_id}-{version}-{_mac(secret, 'endpoint', endpoint_id, version)}"


def endpoint_key_matches(secret: bytes, key: str, endpoint_id: int, version: int) -> bool:
    """Whether the key is this endpoint's, in this version. Takes the same time for every wrong key."""
    return hmac.compare_digest(_bytes(mint_endpoint_key(secret, endpoint_id, version)), _bytes(key))


def ticket_key(worker_token: str) -> bytes:
    """The key of tickets for one worker: derived from its token, so both sides have it and nobody else does."""
    return hmac.new(worker_token.encode(), b"stoker ticket v1", hashlib.sha256).digest()
