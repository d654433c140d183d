"""The fingerprint of a request: equal for every copy of it, whichever client sends it."""

import contextlib
import hashlib
import json

FINGERPRINT_CHARS = 32
_CANONICAL_BYTES_MAX = 256 * 1024
"""A larger payload is taken as it is: to sort its keys would cost more than the request's route."""


def fingerprint(path: str, payload: bytes) -> str:
    """32 hexadecimal digits over the worker's route and the payload.

    The order of keys and blanks of a JSON payload do not count.
    """
    if len(payload) <= _CANONICAL_BYTES_MAX:
        with contextlib.suppress(ValueError, RecursionError):  # not JSON: the bytes are the payload
            payload = json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(path.encode() + b"\0" + payload)
    return digest.hexdigest()[:FINGERPRINT_CHARS]
