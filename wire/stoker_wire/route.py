"""Request and answers of `POST /route/`, which assigns a worker to a request."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stoker_wire.base import TolerantModel

DEFAULT_COST = 100.0
COST_MAX = 1e12
AFFINITY_CHARS_MAX = 256


class RouteRequest(TolerantModel):
    """A client's request for a worker. `request_idx`: 0 for a new request, else the earlier index (poll or re-route)."""

    endpoint: str = Field(min_length=1, max_length=255)
    api_key: str = ""
    cost: float = Field(DEFAULT_COST, ge=0, le=COST_MAX)
    request_idx: int = Field(0, ge=0, le=2**53)
    replay_timeout: float = Field(60.0, ge=0, le=3600)
    """Seconds for which the request keeps its queue position between polls."""
    failed_url: str = Field("", max_length=2048)
    """Sent by stoker's client: url of the worker that just refused or dropped this request."""
    unread: bool = False
    """Sent by stoker's client with `failed_url`: that worker did not process the request, so the request cannot have
    broken it."""
    fingerprint: str = Field("", max_length=64)
    """Sent by stoker's client: equal for all copies of a request (`stoker_wire.security.fingerprint`)."""
    affinity: str = Field("", max_length=AFFINITY_CHARS_MAX)
    """Equal for requests with a common prefix, e.g. the id of a conversation. They go to one worker while its queue is
    short."""


class Route(BaseModel):
    """The assigned worker. The client forwards the whole object to the worker as `auth_data`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str
    signature: str
    """base64 RSA PKCS#1 v1.5 SHA-256 over `{"url": …}`, checked by official workers."""
    cost: float
    endpoint: str
    reqnum: int
    request_idx: int
    ticket: str = ""
    """stoker's ticket, checked by stoker's worker (`stoker_wire.security.ticket`)."""
    waited_ms: float = 0.0
    """How long the request waited for a worker since its first `/route/` call."""
    worker_id: int = 0


class Waiting(BaseModel):
    """No worker is free yet. The answer has no `url`: the official client treats its presence as READY."""

    model_config = ConfigDict(extra="allow", frozen=True)

    endpoint: str
    request_idx: int = Field(ge=1)
    status: str
    """Why the request waits, and the expected wait if known, as text."""
    reason: str = "busy"
    """One of `busy`, `booting`, `recruiting`, `no_capacity`, `stopped`, `worker_failed`."""
    position: int = 0
    """Number of requests ahead in the endpoint's queue."""
    eta_s: float | None = None


RouteAnswer = Route | Waiting


def is_route(answer: dict[str, Any]) -> bool:
    """Whether an answer assigns a worker: decided by the presence of `url`, as in the official client."""
    return "url" in answer
