"""The fingerprint of a request, which is equal for every copy of it."""

import contextlib
import hashlib
import json

FINGERPRINT_CHARS = 32
TICKET_CHARS = 16
"""Characters of a fingerprint in a ticket."""
CANONICAL_BYTES_MAX = 4 * 1024
"""Larger payloads are hashed as they are: to sort their keys would take longer than to route the request."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""`json.dumps` with such options makes an encoder for every call."""


def fingerprint(path: str, payload: bytes) -> str:
    """A hash of the worker's route and the payload, 32 hexadecimal digits.

    The order of keys and the white space of a JSON payload of at most `CANONICAL_BYTES_MAX` bytes do not matter.
    """
    if len(payload) <= CANONICAL_BYTES_MAX:
        with contextlib.suppress(ValueError, RecursionError):  # not JSON: hash the bytes as they are
            payload = _encode(json.loads(payload)).encode()
    digest = hashlib.sha256(path.encode() + b"\0" + payload)
    return digest.hexdigest()[:FINGERPRINT_CHARS]
