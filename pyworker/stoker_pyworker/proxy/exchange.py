"""One request between client and model server, streamed in both directions at the pace of the slower side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.request_envelope import ParsedRequest
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.reporting.request_counts import Outcome, Work
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import BODILESS, HOP_BY_HOP, LAST_CHUNK, named_by_connection, status_line
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection, UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.security.fingerprint import fingerprint
from stoker_wire.workload import WORKLOAD_HEADER

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

_WORKLOAD_HEADER = WORKLOAD_HEADER.lower().encode()
_NOT_FORWARDED = HOP_BY_HOP | {b"x-stoker-worker", _WORKLOAD_HEADER}
"""Response fields that the worker drops or sets itself."""


class ExchangeOwner(Protocol):
    """The proxy, as its exchanges see it."""

    pool: UpstreamPool
    worker_id: bytes
    worker_header: bytes
    """The field `x-stoker-worker` with its line end."""

    def exchange_ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """The exchange needs no more resources."""

    def model_failed(self, fault: UpstreamError) -> None:
        """The model server did not answer a request."""


class CallHolder(Protocol):
    """A session or a job, which holds the counted work of its calls."""

    def call_ended(self, call: Exchange, outcome: Outcome) -> None:
        """A call has ended."""


class Exchange:
    """Listens to the client (`ResponseListener`), receives from the model (`ResponseSink`) and waits in the queue."""

    __slots__ = (
        "_chunking",
        "_ended",
        "_head_sent",
        "_owner",
        "_parts",
        "connection",
        "cycle",
        "entered_at",
        "holder",
        "parsed",
        "route",
        "span",
        "started_at",
        "status",
        "work",
    )

    def __init__(
        self,
        owner: ExchangeOwner,
        cycle: ResponseCycle,
        route: PreparedRoute,
        parsed: ParsedRequest,
        work: Work,
        holder: CallHolder | None,
    ) -> None:
        self._owner = owner
        self.cycle = cycle
        self.route = route
        self.parsed = parsed
        self.work = work
        self.holder = holder
        """The session or job of the call; None: the work counts by itself."""
        self.connection: UpstreamConnection | None = None
        self.status = 0
        self.entered_at = time.perf_counter()
        self.started_at = 0.0
        """When the model got the request, as `entered_at`; 0: not yet."""
        self.span: Span | None = None
        """None: the request is not traced."""
        self._parts: list[bytes] = []
        self._chunking = False
        self._head_sent = False
        self._ended = False

    # --- the queue

    def start(self) -> None:
        """Send the request to the model."""
        self._owner.pool.submit(self, self.route.upstream_request(self.cycle.request, self.parsed))

    # --- the client

    def client_disconnected(self) -> None:
        """Cancel the model's work."""
        if not self._ended:
            self._end(Outcome.CANCELLED)
            self._owner.pool.cancel(self)

    def pause_writing(self) -> None:
        """The client is slower than the model."""
        if self.connection is not None:
            self.connection.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.connection is not None:
            self.connection.resume()

    # --- the model

    def sent(self) -> None:
        """The model has the request; the time in the queue ends."""
        self.started_at = time.perf_counter()
        self.work.started_at = time.time()

    def head(self, head: ResponseHead) -> None:
        """Prepare status and header fields for the client."""
        now = time.perf_counter()
        self.status = status = head.status
        parts = self._parts
        parts.append(status_line(status))
        named: frozenset[bytes] = frozenset()
        for name, value in head.headers:
            if name == b"connection" and value not in (b"keep-alive", b"close"):
                named = named_by_connection(head.headers)
        for name, value in head.headers:
            if name not in _NOT_FORWARDED and name not in named:
                parts += (name, b": ", value, b"\r\n")
        parts.append(
            b"server-timing: queue;dur=%.2f, model;dur=%.2f\r\n%b"
            % (
                (self.started_at - self.entered_at) * 1e3,
                (now - self.started_at) * 1e3,
                self._owner.worker_header,
            )
        )
        if self.route.calculates:
            parts.append(b"%b: %b\r\n" % (_WORKLOAD_HEADER, repr(self.work.workload).encode()))
        if head.length is None and status not in BODILESS and self.cycle.request.method != b"HEAD":
            if self.cycle.request.http_1_0:
                self.cycle.request.keep_alive = False
            else:
                self._chunking = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if not self.cycle.stays_open:
            parts.append(b"connection: close\r\n")
        elif self.cycle.request.http_1_0:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        self._head_sent = True

    def body(self, data: bytes) -> None:
        """Prepare a piece of the body."""
        if not self.work.first_byte_at:
            self.work.first_byte_at = time.time()
        if self._chunking:
            self._parts += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._parts.append(data)

    def flush(self) -> None:
        """Send everything from one read of the model's connection in one write."""
        if self._parts:
            self.cycle.write(b"".join(self._parts))
            self._parts.clear()

    def end(self) -> None:
        """Complete the response."""
        if self._chunking:
            self._parts.append(LAST_CHUNK)
        self.flush()
        self._end(Outcome.SUCCESS if self.status < 500 else Outcome.ERROR)
        self.cycle.complete()

    def fault(self, fault: UpstreamError) -> None:
        """Report the failed model server to the client, or cut a response that has begun."""
        if self._ended:
            return
        # Without a connection the model never received the request, so the request did not break it.
        self._end(Outcome.REJECTED if fault.kind == "connect" else Outcome.ERROR)
        self._owner.model_failed(fault)
        if self._head_sent:
            self.flush()
            self.cycle.abort()
        else:
            code = "model_unreachable" if fault.kind == "connect" else "model_failed"
            self.cycle.respond_problem(Problem(502, code, f"{fault}; route again"))

    # --- the end

    def cancel(self, outcome: Outcome, problem: Problem) -> None:
        """End the exchange because its session or job has ended, or the worker stops."""
        if self._ended:
            return
        self._end(outcome)
        self._owner.pool.cancel(self)
        if self._head_sent:
            self.cycle.abort()
        else:
            self.cycle.respond_problem(problem)

    def _end(self, outcome: Outcome) -> None:
        self._ended = True
        if outcome is Outcome.ERROR:
            # The request as it came, because hooks may have changed `parsed`: equal for all copies.
            request = self.cycle.request
            original = request_envelope.parse(request)
            if original.has_body:
                self.work.fingerprint = fingerprint(request.path.decode("latin-1"), bytes(original.body))
        self._owner.exchange_ended(self, outcome)
