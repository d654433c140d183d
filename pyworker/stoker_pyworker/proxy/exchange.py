"""One request between its client and the model: what comes is handed on at once, in both directions at the slower's pace."""

import time
from typing import TYPE_CHECKING

from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.messages import BODILESS, HOP_BY_HOP, LAST_CHUNK, named_by_connection, status_line
from stoker_pyworker.http.outgoing import Head, OriginFault, OutgoingConnection
from stoker_pyworker.http.request import Request
from stoker_pyworker.proxy.request_envelope import Asked
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.reporting.request_counts import Outcome, Work
from stoker_wire.problem import Problem

if TYPE_CHECKING:
    from stoker_pyworker.proxy.admission import RequestProxy
    from stoker_pyworker.proxy.sessions import Session

_NOT_FOR_THE_CLIENT = HOP_BY_HOP | {b"x-stoker-worker"}
"""Hop-by-hop, or ours to say."""


class Exchange:
    """Listens to the client, receives from the model, and takes its turn in the line."""

    __slots__ = (
        "_chunking",
        "_ended",
        "_head_sent",
        "_parts",
        "_proxy",
        "_turn_at",
        "asked",
        "client",
        "connection",
        "entered",
        "request",
        "route",
        "session",
        "status",
        "work",
    )

    def __init__(
        self,
        proxy: "RequestProxy",
        client: ClientConnection,
        request: Request,
        route: PreparedRoute,
        asked: Asked,
        work: Work,
        session: "Session | None",
    ) -> None:
        self._proxy = proxy
        self.client = client
        self.request = request
        self.route = route
        self.asked = asked
        self.work = work
        self.session = session
        self.connection: OutgoingConnection | None = None
        self.status = 0
        self.entered = time.perf_counter()
        self._turn_at = 0.0
        self._parts: list[bytes] = []
        self._chunking = False
        self._head_sent = False
        self._ended = False

    # --- the line

    def turn(self) -> None:
        """Our turn: the model gets the request."""
        self._proxy.pool.submit(self, self.route.to_model(self.request, self.asked))

    # --- the client

    def client_gone(self) -> None:
        """Nobody reads the answer: the model can stop at once."""
        if not self._ended:
            self._end(Outcome.CANCELLED)
            self._proxy.pool.cancel(self)

    def client_full(self) -> None:
        """The client is slower than the model."""
        if self.connection is not None:
            self.connection.pause()

    def client_drained(self) -> None:
        """The client has caught up."""
        if self.connection is not None:
            self.connection.resume()

    # --- the model

    def sent(self) -> None:
        """The model has the request: here the queue ends."""
        self._turn_at = time.perf_counter()
        self.work.started_at = time.time()

    def head(self, head: Head) -> None:
        """Status and fields of the model's answer, with ours added."""
        now = time.perf_counter()
        self.status = status = head.status
        parts = self._parts
        parts.append(status_line(status))
        named: frozenset[bytes] = frozenset()
        for name, value in head.headers:
            if name == b"connection" and value not in (b"keep-alive", b"close"):
                named = named_by_connection(head.headers)
        for name, value in head.headers:
            if name not in _NOT_FOR_THE_CLIENT and name not in named:
                parts += (name, b": ", value, b"\r\n")
        parts.append(
            b"server-timing: queue;dur=%.2f, model;dur=%.2f\r\n%b"
            % ((self._turn_at - self.entered) * 1e3, (now - self._turn_at) * 1e3, self._proxy.signature)
        )
        if head.length is None and status not in BODILESS:
            if self.request.http_1_0:
                self.request.keep_alive = False
            else:
                self._chunking = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if not self.client.stays_open:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._head_sent = True

    def body(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._chunking:
            self._parts += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._parts.append(data)

    def flush(self) -> None:
        """What one read of the model's connection brought goes out in one write."""
        if self._parts:
            self.client.write(b"".join(self._parts))
            self._parts.clear()

    def end(self) -> None:
        """The answer is complete."""
        if self._chunking:
            self._parts.append(LAST_CHUNK)
        self.flush()
        self._end(Outcome.SUCCESS if self.status < 500 else Outcome.ERROR)
        self.client.done()

    def fault(self, fault: OriginFault) -> None:
        """The model server failed: say so, or cut an answer that has begun."""
        if self._ended:
            return
        # Without a connection the model never had the request: it did not break of it.
        self._end(Outcome.REJECTED if fault.kind == "connect" else Outcome.ERROR)
        self._proxy.model_failed(fault)
        if self._head_sent:
            self.flush()
            self.client.abort()
        else:
            code = "model_unreachable" if fault.kind == "connect" else "model_failed"
            self.client.refuse(Problem(502, code, f"{fault}; route again"))

    # --- the end

    def cut(self, outcome: Outcome, problem: Problem) -> None:
        """End it from our side: its session is over, or the worker's time is up."""
        if self._ended:
            return
        self._end(outcome)
        self._proxy.pool.cancel(self)
        if self._head_sent:
            self.client.abort()
        else:
            self.client.refuse(problem)

    def _end(self, outcome: Outcome) -> None:
        self._ended = True
        self._proxy.leave(self, outcome)
