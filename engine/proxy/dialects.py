"""The shapes of model APIs that differ where the engine answers itself: errors, and signs of life in a stream.

Calls and answers pass through unchanged. The path tells the dialect.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Dialect(Enum):
    """Whose API a path belongs to."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


_STREAMED = ("/api/chat", "/api/generate", "/api/pull", "/api/push", "/api/create")
"""Ollama's calls that stream unless the body says `"stream": false`."""


def dialect_of(path: str) -> Dialect:
    """The dialect of a path at the worker."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Dialect.ANTHROPIC
    return Dialect.OLLAMA if path.startswith("/api/") else Dialect.OPENAI


def streams(path: str, payload: Mapping[str, Any] | None) -> bool:
    """Whether the answer to this call is a stream."""
    if payload is None:
        return False
    if path in _STREAMED:
        return payload.get("stream") is not False
    return payload.get("stream") is True
