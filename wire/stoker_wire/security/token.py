"""Keys derived from the deployment's secret, which any process can check without a lookup.

* A *worker token* (`MASTER_TOKEN`, `mtoken`) authenticates a worker of one endpoint and launch:
  `<endpoint id>.<launch id>.<hmac>`.
* An *endpoint key* only authorises routing requests of one endpoint: `sk-ep-<endpoint id>-<version>-<hmac>`.

A *client key* does the same for one client, with limits: `sk-ep-<endpoint id>-<random>`. It is random, and the
endpoint's workflow stores its SHA-256 (`stoker_wire.security.client_key`).
"""

import hashlib
import hmac
import re
from typing import NamedTuple

_MAC_CHARS = 40
_ID_DIGITS_MAX = 19
CLIENT_KEY_BYTES = 20
"""Of randomness in a client key."""
_CLIENT_KEY = re.compile(r"sk-ep-([0-9]{1,19})-[0-9a-f]{40}")


def _bytes(text: str) -> bytes:
    """Encode text that may contain a lone surrogate from JSON, so that such a token is refused and not an error."""
    return text.encode("utf-8", "surrogatepass")


class WorkerIdentity(NamedTuple):
    """The endpoint and launch of a worker token."""

    endpoint_id: int
    launch_id: str


def _mac(secret: bytes, purpose: str, *parts: object) -> str:
    message = _bytes("\0".join([purpose, *map(str, parts)]))
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:_MAC_CHARS]


def mint_worker_token(secret: bytes, endpoint_id: int, launch_id: str) -> str:
    """The token for a worker's launch."""
    return f"{endpoint_id}.{launch_id}.{_mac(secret, 'worker', endpoint_id, launch_id)}"


def read_worker_token(secret: bytes, token: str) -> WorkerIdentity | None:
    """The identity in a token; None if the token was not made with this secret."""
    parts = token.split(".")
    if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit() or len(parts[0]) > _ID_DIGITS_MAX:
        return None
    identity = WorkerIdentity(int(parts[0]), parts[1])
    expected = mint_worker_token(secret, *identity)
    return identity if hmac.compare_digest(_bytes(expected), _bytes(token)) else None


def mint_endpoint_key(secret: bytes, endpoint_id: int, version: int) -> str:
    """The routing key of an endpoint; a higher version replaces it."""
    return f"sk-ep-{endpoint_id}-{version}-{_mac(secret, 'endpoint', endpoint_id, version)}"


def endpoint_key_matches(secret: bytes, key: str, endpoint_id: int, version: int) -> bool:
    """Whether the key is this version of the endpoint's key. The comparison takes constant time."""
    return hmac.compare_digest(_bytes(mint_endpoint_key(secret, endpoint_id, version)), _bytes(key))


def mint_client_key(endpoint_id: int, random: bytes) -> str:
    """A new client key from `CLIENT_KEY_BYTES` random bytes."""
    if len(random) != CLIENT_KEY_BYTES:
        raise ValueError(f"a client key needs {CLIENT_KEY_BYTES} random bytes, got {len(random)}")
    return f"sk-ep-{endpoint_id}-{random.hex()}"


def client_key_endpoint(key: str) -> int | None:
    """The endpoint id in a text that has the form of a client key; None: it has another form."""
    match = _CLIENT_KEY.fullmatch(key)
    return None if match is None else int(match[1])


def client_key_digest(key: str) -> str:
    """SHA-256 of a client key, hexadecimal, for storage. The key is random, so it needs no salt."""
    return hashlib.sha256(_bytes(key)).hexdigest()


def ticket_key(worker_token: str) -> bytes:
    """The key of a worker's tickets, derived from its token, which only the worker and engines know."""
    return hmac.new(worker_token.encode(), b"stoker ticket v1", hashlib.sha256).digest()
