"""Parts of call declarations that several handlers share: security schemes, refusal statuses, parameters, replies."""

from typing import Any

from stoker_wire.http.openapi import Parameter, Reply

SECURITY: dict[str, dict[str, str]] = {
    "accountKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An account's key: everything that the account owns",
    },
    "accountKeyInQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
    "endpointKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An endpoint's key: routes requests of this endpoint, nothing else",
    },
}
ACCOUNT = ("accountKey", "accountKeyInQuery")
CLIENT = ("endpointKey", *ACCOUNT)

BODY = (400, 401, 408, 413)
"""Refusals of an authenticated call with a body."""
TEMPORAL = (404, 502, 503)
"""Refusals of a call that asks an endpoint's workflow."""
MARKET = (400, 404, 429, 502, 503)
"""Refusals of a call that asks the marketplace."""

ID = Parameter(name="id", about="The number that create answered", where="path", type=int)
KEY_NAME = Parameter(name="name", about="The key's name", where="path")
TAIL = Parameter(name="tail", about="Number of lines, at most 1000", type=int)
ENDPOINT_NAME = Parameter(name="endpoint", about="The endpoint's name", where="path")
COST = Parameter(
    name="X-Stoker-Cost",
    about="The request's workload; by default, the worker's rule computes it",
    where="header",
    type=float,
)

AFFINITY = Parameter(
    name="X-Stoker-Affinity",
    about="Equal for requests with a common prefix; one worker serves them while its queue is short",
    where="header",
)


def ok(body: Any, about: str = "Done", status: int = 200) -> dict[int, Reply]:
    """A JSON reply."""
    return {status: Reply(about=about, type=body)}


def text(content_type: str, about: str) -> dict[int, Reply]:
    """A reply that is not JSON."""
    return {200: Reply(about=about, content_type=content_type)}
