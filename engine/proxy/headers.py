"""Which header fields and which part of a query string go from a client to a worker, and back."""

from collections.abc import Iterable

from stoker_wire.http1.messages import HOP_BY_HOP, Header, named_by_connection

_CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key", b"cookie", b"cookie2"})
"""The key opens the endpoint. A worker is a machine of third parties, so it must not see the key."""
_NOT_FOR_WORKERS = (
    HOP_BY_HOP
    | _CREDENTIALS
    | {b"content-length", b"content-type", b"expect", b"host", b"http2-settings", b"origin"}
)
_NOT_FOR_CLIENTS = HOP_BY_HOP | {
    b"alt-svc",
    b"clear-site-data",
    b"content-length",
    b"http2-settings",
    b"public-key-pins",
    b"set-cookie",
    b"set-cookie2",
    b"strict-transport-security",
    b"x-stoker-workload",
}
"""Besides hop-by-hop fields, whatever changes how a browser treats the engine's own address."""
_OF_BROWSERS = (b"access-control-", b"sec-")
_NEVER_TO_WORKERS = (*_OF_BROWSERS, b"x-stoker-")
_PLAIN = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_KEY_PARAMETER = b"api_key"


def to_worker(headers: Iterable[Header]) -> list[Header]:
    """The client's header fields for the worker. The caller adds body and ticket."""
    return _kept(headers, _NOT_FOR_WORKERS, _NEVER_TO_WORKERS)


def to_client(headers: Iterable[Header]) -> list[Header]:
    """The worker's header fields for the client."""
    return _kept(headers, _NOT_FOR_CLIENTS, _OF_BROWSERS)


def query_to_worker(query: bytes) -> bytes:
    """The query string without the client's key."""
    if _KEY_PARAMETER not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != _KEY_PARAMETER)


def _kept(headers: Iterable[Header], dropped: frozenset[bytes], prefixes: tuple[bytes, ...]) -> list[Header]:
    for name, value in headers:
        if name == b"connection" and value not in _PLAIN:
            dropped = dropped | named_by_connection(headers)
    return [field for field in headers if field[0] not in dropped and not field[0].startswith(prefixes)]
