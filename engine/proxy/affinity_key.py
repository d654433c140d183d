"""The affinity key of a model call: requests of one key share a prefix, which one worker then has in its cache."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from stoker_wire.errors.problem import Problem
from stoker_wire.route import AFFINITY_CHARS_MAX

AFFINITY_HEADER = "X-Stoker-Affinity"
AFFINITY_FIELD = AFFINITY_HEADER.lower().encode()
_CACHE_KEY = "prompt_cache_key"
"""OpenAI's parameter with the same meaning."""
_PROMPT_FIELDS = ("tools", "system", "instructions", "prompt", "input", "messages")
"""In the order in which model servers render them into the prompt."""


def affinity_key(given: str, payload: Mapping[str, Any] | None, prefix_bytes: int) -> str:
    """The header's value, `prompt_cache_key`, or a hash of the prompt's first `prefix_bytes` bytes; empty: none of them.

    Raises:
        Problem: 400, the header is too long.
    """
    if len(given) > AFFINITY_CHARS_MAX:
        message = f"{AFFINITY_HEADER}: at most {AFFINITY_CHARS_MAX} characters are accepted, got {len(given)}"
        raise Problem(400, "invalid_args", message)
    if given or payload is None:
        return given
    cache_key = payload.get(_CACHE_KEY)
    if isinstance(cache_key, str) and cache_key:
        return cache_key[:AFFINITY_CHARS_MAX]
    if prefix_bytes <= 0:
        return ""
    prefix = _prefix(payload, prefix_bytes)
    return hashlib.blake2b(prefix, digest_size=16).hexdigest() if prefix else ""


def _prefix(payload: Mapping[str, Any], bytes_max: int) -> bytes:
    """The first bytes of the prompt's texts; a shorter prompt is its own prefix."""
    taken = b""
    for name in _PROMPT_FIELDS:
        for text in _texts(payload.get(name)):
            taken += text[: bytes_max - len(taken)].encode("utf-8", "surrogatepass") + b"\0"
            if len(taken) >= bytes_max:
                return taken[:bytes_max]
    return taken


def _texts(value: Any) -> Iterator[str]:
    """The texts in a JSON value, in their order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
