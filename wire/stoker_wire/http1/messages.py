"""HTTP message heads as bytes, and the header fields that a proxy forwards."""

import functools
import http
import re
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate

import msgspec

from stoker_wire.errors.problem import Problem

Header = tuple[bytes, bytes]
"""A header field; names are lower case inside this package."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields about one connection, not about the message (RFC 9110 §7.6.1)."""

JSON = b"application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
BODILESS = frozenset({204, 304})
"""Statuses without a response body. Body bytes would be parsed as the next response."""
_LINE_ENDS = re.compile(rb"[\r\n\0]")

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


def date_field() -> bytes:
    """The `Date` field with its line end: workers compare their clocks with it, and RFC 9110 §6.6.1 requires it."""
    return _date_field(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_field(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def named_by_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    """The fields that the Connection header declares as hop-by-hop."""
    names: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            names.update(part.strip().lower() for part in value.split(b","))
    return frozenset(names)


def header_fields(headers: Mapping[str, str], encoding: str = "latin-1") -> tuple[Header, ...]:
    """Header fields as bytes, names in lower case.

    Raises:
        ValueError: a field contains a line end (header injection) or cannot be encoded.
    """
    fields = tuple(
        (name.lower().encode("latin-1"), value.encode(encoding)) for name, value in headers.items()
    )
    for name, value in fields:
        if _LINE_ENDS.search(name) or _LINE_ENDS.search(value):
            raise ValueError(f"the header field {name!r} contains a line end")
    return fields


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def problem_json(problem: Problem) -> bytes:
    """The response body of a problem."""
    return msgspec.json.encode(problem.body())


def problem_fields(problem: Problem) -> tuple[Header, ...]:
    """The header fields of a problem."""
    return tuple((name.lower().encode(), value.encode()) for name, value in problem.headers.items())
