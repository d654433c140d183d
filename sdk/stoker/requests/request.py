"""A request as its caller describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from stoker.requests.progress import OnWait
from stoker_wire.route import DEFAULT_COST


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: an item of `Endpoint.map`, and the arguments of `Endpoint.request`."""

    route: str
    """Path of the worker's handler, e.g. `/v1/completions`."""
    payload: Any = None
    """Sent to the model as JSON. Give `content` instead for bytes, or `files` and `data` for a form."""
    cost: float = DEFAULT_COST
    """Work in the request, in the endpoint's units (tokens, pixels, a constant)."""
    timeout: float | None = None
    """Seconds for everything: waiting, retries, the model. None: the client's default."""
    content: bytes | None = None
    content_type: str | None = None
    """Goes with `content`; None: application/octet-stream."""
    files: Mapping[str, Any] | None = None
    """Files of a form, as httpx takes them."""
    data: Mapping[str, Any] | None = None
    """Text fields of a form."""
    retry: bool = True
    """False: one worker, one attempt."""
    idempotency_key: str | None = None
    """Sent with every attempt; None: a random one."""
    affinity: str = ""
    """Equal for requests with a common prefix, e.g. the id of a conversation. They go to the worker that has it in its
    cache while its queue is short."""
    on_wait: OnWait | None = None
    """Called with a `Wait` whenever the engine reports why the request waits."""


class RequestOptions(TypedDict, total=False):
    """Keyword arguments of `Endpoint.request`, `submit` and `stream`: the fields of `Request`."""

    cost: float
    timeout: float | None
    content: bytes | None
    content_type: str | None
    files: Mapping[str, Any] | None
    data: Mapping[str, Any] | None
    retry: bool
    idempotency_key: str | None
    affinity: str
    on_wait: OnWait | None
