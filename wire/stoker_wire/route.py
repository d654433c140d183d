"""`POST /route/`: which worker a request goes to, or why it waits."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stoker_wire.base import TolerantModel

DEFAULT_COST = 100.0
COST_MAX = 1e12


class RouteRequest(TolerantModel):
    """What a client asks. `request_idx` 0 is a new request; else the index given before (a poll, or a re-route)."""

    endpoint: str = Field(min_length=1, max_length=255)
    api_key: str = ""
    cost: float = Field(DEFAULT_COST, ge=0, le=COST_MAX)
    request_idx: int = Field(0, ge=0, le=2**53)
    replay_timeout: float = Field(60.0, ge=0, le=3600)
    """Seconds for which the index keeps its place in the queue between polls."""
    failed_url: str = Field("", max_length=2048)
    """stoker's own client: the worker that just refused or dropped this request (its url)."""
    fingerprint: str = Field("", max_length=64)
    """stoker's own client: equal for all copies of a request (`stoker_wire.security.fingerprint`); empty: not told."""


class Route(BaseModel):
    """A worker was chosen. The whole object is forwarded to the worker as `auth_data`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str
    signature: str
    """base64 RSA PKCS#1 v1.5 SHA-256 over `{"url": …}`, what official workers check."""
    cost: float
    endpoint: str
    reqnum: int
    request_idx: int
    ticket: str = ""
    """stoker's own ticket, what stoker's worker checks (`stoker_wire.security.ticket`)."""
    waited_ms: float = 0.0
    """How long the request waited for a worker, from its first `/route/` call."""
    worker_id: int = 0


class Waiting(BaseModel):
    """No worker yet. There is no `url` key at all: its mere presence would mean READY to the official client."""

    model_config = ConfigDict(extra="allow", frozen=True)

    endpoint: str
    request_idx: int = Field(ge=1)
    status: str
    """A sentence for people: why it waits, and for how long if that is known."""
    reason: str = "busy"
    """One of `busy`, `booting`, `recruiting`, `no_capacity`, `stopped`, `worker_failed`."""
    position: int = 0
    """Requests before this one in the endpoint's queue."""
    eta_s: float | None = None


RouteAnswer = Route | Waiting


def is_route(answer: dict[str, Any]) -> bool:
    """Whether an answer names a worker: as in the official client, by the presence of `url`."""
    return "url" in answer
