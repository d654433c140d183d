"""Parses the bytes of one connection into requests, within the limits."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import httptools

from stoker_wire.errors.problem import Problem
from stoker_wire.http1.limits import Limits
from stoker_wire.http1.request import BodyBudget, Request

_PIECE_BYTES = 4096
"""Smaller body pieces are joined: as separate objects they would use more memory than their content."""
_REQUEST_BYTES, _FIELD_BYTES = 300, 150
"""Memory of a request object and of each header field, in addition to the text."""


@dataclass(slots=True)
class RequestMemory:
    """Memory used by the requests of all connections of a server; the budget of bodies that have no other."""

    bytes_max: int
    """Largest body."""
    held_bytes_max: int
    held_bytes: int = 0

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            Problem: 503, all requests together use too much.
        """
        self.held_bytes += size
        if self.held_bytes > self.held_bytes_max:
            self.held_bytes -= size
            raise Problem(503, "bodies_too_large", "this server holds too much request data; try again")

    def give(self, size: int) -> None:
        """Release bytes."""
        self.held_bytes -= size


BudgetOf = Callable[[Request], BodyBudget]
"""The budget of a request's body, by its head. A `Problem` that it raises refuses the request before its body."""


class ReadState(Enum):
    """The part of a request that the reader expects next."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


_IDLE, _HEAD, _BODY = ReadState  # a lookup in an enumeration takes as long as a comparison
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


class RequestReader:
    """Appends each complete request to `complete`, or the problem that ends the connection."""

    __slots__ = (
        "_budget_of",
        "_complete",
        "_field_count",
        "_head_bytes",
        "_head_without_offer",
        "_limits",
        "_memory",
        "_parser",
        "_pieces",
        "after_handshake",
        "body_bytes",
        "expects_continue",
        "head_received_at",
        "problem",
        "request",
        "state",
    )

    def __init__(
        self,
        limits: Limits,
        memory: RequestMemory,
        budget_of: BudgetOf | None,
        complete: deque[Request | Problem],
    ) -> None:
        """`budget_of` None: `memory` is the budget of every body."""
        self._limits = limits
        self._budget_of = budget_of
        self._memory = memory
        self._complete = complete
        self._parser = httptools.HttpRequestParser(self)
        self.request = Request()
        """The one that is being read."""
        self._pieces: list[bytes | bytearray] = []
        self._head_bytes = 0
        self._field_count = 0
        self._head_without_offer = b""
        """Head of a request that offers another protocol, to be parsed again without the offer."""
        self.state = ReadState.IDLE
        self.problem: Problem | None = None
        """The reason why no more requests are read."""
        self.body_bytes = 0
        """Received of the current body."""
        self.head_received_at = 0.0
        """When the current head was complete, monotonic clock."""
        self.expects_continue = False
        """The client waits for `100 Continue` before it sends the body."""
        self.after_handshake: bytearray | None = None
        """Bytes after the handshake of a WebSocket. They are not HTTP, so no further request is read."""

    def feed(self, data: bytes) -> None:
        """Parse received bytes."""
        if self.after_handshake is not None:
            self.after_handshake += data
            return
        if self.state is _IDLE:
            self._head_bytes = 0
            self.state = _HEAD
        if self.state is _HEAD:
            self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._fail(400, "malformed_http", f"not valid HTTP/1.1: {error}")
        if self.state is _HEAD and self._head_bytes > self._limits.head_bytes_max:
            self._fail_head_too_large()
        if self.problem is not None:
            self._complete.append(self.problem)

    def _parse(self, data: bytes) -> None:
        """Parse bytes; an offer of another protocol is ignored (RFC 9110 §7.8)."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.problem is not None:
                    return
                if self.request.websocket:
                    self.after_handshake = bytearray(data[offer.args[0] :])
                    return
                # The parser has skipped the body, because it takes what follows for the other protocol.
                data = data[offer.args[0] :]
                head, self._head_without_offer = self._head_without_offer, b""
                self._parser = httptools.HttpRequestParser(self)
                self._parser.feed_data(head)
            else:
                return

    def release(self, request: Request) -> None:
        """Return the memory of an answered request."""
        request.release_body()
        self._memory.give(request.held_bytes)
        request.held_bytes = 0

    # --- parser callbacks

    def on_message_begin(self) -> None:
        """Start a request. One read may contain several."""
        if self.state is _IDLE:
            self._head_bytes = 0
        self.state = _HEAD
        self.request = Request()
        self.body_bytes = 0
        self.expects_continue = False
        self._field_count = 0

    def on_url(self, url: bytes) -> None:
        """Append a piece of the request target."""
        self.request.path += url
        if len(self.request.path) > self._limits.head_bytes_max:
            self._fail_head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field. Trailer fields are counted and dropped."""
        self._field_count += 1
        if self._field_count > self._limits.head_fields_max:
            self._fail_head_too_large()
        elif self.state is _HEAD:
            self.request.headers.append((name.lower(), value))
        else:
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > self._limits.head_bytes_max:
                self._fail_head_too_large()

    def on_headers_complete(self) -> None:
        """Check everything that does not depend on the body."""
        if self.problem is not None:
            return
        request = self.request
        version = self._parser.get_http_version()
        if version != "1.1" or self._parser.should_upgrade():
            if not self._is_supported(version):
                return
            request.http_1_0 = version == "1.0"
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive() and not request.websocket
        target = request.path
        if not target.startswith(b"/"):
            target = _origin_form(target)
        request.path, _, request.query = target.partition(b"?")
        self.state = _BODY
        self.head_received_at = time.monotonic()
        length, head_bytes = self._check_fields(request)
        head_bytes += len(target)
        if head_bytes > self._limits.head_bytes_max:
            self._fail_head_too_large()
        if self.problem is not None:
            return
        size = _REQUEST_BYTES + head_bytes + len(request.headers) * _FIELD_BYTES
        try:
            self._memory.take(size)
            request.held_bytes = size
            if length:
                request.budget = self._memory if self._budget_of is None else self._budget_of(request)
        except Problem as problem:
            self.problem = problem
            return
        if request.budget is not None and length > request.budget.bytes_max:
            self._fail_body_too_large()

    def on_body(self, data: bytes) -> None:
        """Append a piece of the body."""
        if self.problem is not None:
            return
        request = self.request
        self.body_bytes += len(data)
        if request.budget is None or self.body_bytes > request.budget.bytes_max:
            self._pieces.clear()
            self._fail_body_too_large()
            return
        try:
            request.budget.take(len(data))
        except Problem as problem:
            self._pieces.clear()
            self.problem = problem
            return
        request.body_held += len(data)
        if len(data) >= _PIECE_BYTES or not self._pieces:
            self._pieces.append(data)
        elif isinstance(last := self._pieces[-1], bytearray):
            last += data
        else:
            self._pieces.append(bytearray(data))

    def on_message_complete(self) -> None:
        """Hand over the complete request."""
        if self.problem is not None or self._head_without_offer:
            return
        request, pieces = self.request, self._pieces
        if pieces:
            first = pieces[0]
            request.body = first if len(pieces) == 1 and isinstance(first, bytes) else b"".join(pieces)
            self._pieces = []
        self.state = _IDLE
        self._complete.append(request)

    # --- checks

    def _is_supported(self, version: str) -> bool:
        if version not in ("1.1", "1.0"):
            self._fail(505, "http_version_unsupported", f"this server speaks HTTP/1.1, not {version}")
        elif self._parser.should_upgrade() and self._needs_tunnel():
            if self._is_handshake() and version == "1.1":
                self.request.websocket = True
            else:
                self._fail(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only; send no Upgrade")
        elif self._parser.should_upgrade():
            self._head_without_offer = _without_offer(self._parser.get_method(), self.request, version)
        return self.problem is None and not self._head_without_offer

    def _needs_tunnel(self) -> bool:
        """Whether what follows the head is no HTTP, whatever this server answers."""
        offers = [value.lower() for name, value in self.request.headers if name == b"upgrade"]
        return self._parser.get_method() == b"CONNECT" or any(b"websocket" in offer for offer in offers)

    def _is_handshake(self) -> bool:
        """Whether the head is a WebSocket handshake. With a body, two readers could see its end differently."""
        fields = [name for name, _ in self.request.headers]
        offers = [value.strip().lower() for name, value in self.request.headers if name == b"upgrade"]
        return (
            self._parser.get_method() == b"GET"
            and offers == [b"websocket"]
            and fields.count(b"sec-websocket-key") == 1
            and b"content-length" not in fields
            and b"transfer-encoding" not in fields
        )

    def _check_fields(self, request: Request) -> tuple[int, int]:
        """Check the header fields that frame the request. Returns the body's length (1: unknown), and their size."""
        size = length = hosts = 0
        for name, value in request.headers:
            size += len(name) + len(value) + 4
            if name not in _FRAMING:
                continue
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                length = 1
                if value.lower() != b"chunked" or request.http_1_0:
                    self._fail(400, "malformed_http", "the only Transfer-Encoding accepted is chunked")
            elif name == b"expect" and not request.http_1_0:  # HTTP/1.0 has no interim responses
                self.expects_continue = True
                if value.lower() != b"100-continue":
                    self._fail(417, "expectation_unknown", "the only expectation supported is 100-continue")
        if hosts > 1:
            self._fail(400, "header_repeated", "a request has one Host header, this one has several")
        elif not hosts and not request.http_1_0:
            self._fail(400, "host_missing", "an HTTP/1.1 request needs a Host header")
        return length, size

    def _fail(self, status: int, code: str, message: str) -> None:
        if self.problem is None:
            self.problem = Problem(status, code, message)

    def _fail_head_too_large(self) -> None:
        most = f"{self._limits.head_bytes_max} bytes and {self._limits.head_fields_max} fields"
        self._fail(431, "head_too_large", f"the request's head is over {most}; send less in headers")

    def _fail_body_too_large(self) -> None:
        budget = self.request.budget
        most = 0 if budget is None else budget.bytes_max
        self._fail(
            413,
            "body_too_large",
            f"the body is larger than the {most} bytes that this path takes; send less, or a link",
        )


def _origin_form(target: bytes) -> bytes:
    """`http://host/path?q` as `/path?q`. Another form stays unchanged and matches no route."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target
    path = url.path or b"/"
    return path + (b"?" + url.query if url.query else b"")


_OFFER_FIELDS = frozenset({b"upgrade", b"http2-settings"})


def _without_offer(method: bytes, request: Request, version: str) -> bytes:
    lines = [method + b" " + request.path + b" HTTP/" + version.encode()]
    for name, value in request.headers:
        if name == b"connection":
            kept = [part for part in value.split(b",") if part.strip().lower() not in _OFFER_FIELDS]
            value = b",".join(kept)  # noqa: PLW2901
        if name not in _OFFER_FIELDS and (value or name != b"connection"):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
