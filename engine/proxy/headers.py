"""Which header fields and which part of a query string go from a client to a worker, and back."""

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""About one connection, not about the message (RFC 9110 §7.6.1)."""
_CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key", "cookie", "cookie2"})
"""The key opens the endpoint. A worker is a machine of third parties, so it must not see the key."""
_OF_BROWSERS = ("access-control-", "sec-")
_NOT_FOR_WORKERS = _HOP_BY_HOP | _CREDENTIALS | {"content-length", "content-type", "expect", "host", "origin"}
_NOT_FOR_CLIENTS = _HOP_BY_HOP | {
    "alt-svc",
    "clear-site-data",
    "content-length",
    "public-key-pins",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "x-stoker-workload",
}
"""Besides hop-by-hop fields, whatever changes how a browser treats the engine's own address."""
_KEY_PARAMETER = "api_key"
_OWN = "x-stoker-"


def to_worker(headers: Mapping[str, str]) -> "CIMultiDict[str]":
    """The client's header fields for the worker. The caller adds body and ticket."""
    named = _named_by_connection(headers)
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if not _is_dropped(name.lower(), _NOT_FOR_WORKERS, named) and not name.lower().startswith(_OWN)
    )


def to_client(headers: Mapping[str, str]) -> "CIMultiDict[str]":
    """The worker's header fields for the client."""
    named = _named_by_connection(headers)
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if not _is_dropped(name.lower(), _NOT_FOR_CLIENTS, named)
    )


def query_to_worker(query: str) -> str:
    """The query string without the client's key."""
    if _KEY_PARAMETER not in query:
        return query
    return "&".join(part for part in query.split("&") if part.partition("=")[0] != _KEY_PARAMETER)


def _is_dropped(name: str, dropped: frozenset[str], named: Iterable[str]) -> bool:
    return name in dropped or name in named or name.startswith(_OF_BROWSERS)


def _named_by_connection(headers: Mapping[str, str]) -> frozenset[str]:
    value = headers.get("Connection", "")
    return frozenset(part.strip().lower() for part in value.split(",")) if value else frozenset()
