"""A WebSocket between client and model server. After the handshake, bytes pass unchanged in both directions."""

import asyncio

from stoker_pyworker.proxy.exchange import CallHolder, Exchange, ExchangeOwner
from stoker_pyworker.proxy.request_envelope import ParsedRequest, websocket_protocols
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.reporting.request_counts import Outcome, Work
from stoker_wire.errors.problem import Problem
from stoker_wire.http.websocket import FAILED, GOING_AWAY, POLICY, PROTOCOL, FrameTracker, close_frame
from stoker_wire.http1.messages import HOP_BY_HOP, status_line
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import ResponseHead, UpstreamConnection, UpstreamError

_FINISH_SECONDS = 10.0
"""For the model server to end after the client has sent its last byte."""
_NOT_FORWARDED = HOP_BY_HOP | {b"content-length", b"x-stoker-worker", b"x-stoker-workload"}
_CLOSE_CODES = {"worker_ending": GOING_AWAY, "session_ended": GOING_AWAY}


class WebSocketExchange(Exchange):
    """Ends with the first side that closes. An answer of the model server other than 101 is passed on as usual."""

    __slots__ = ("_client_finished", "_from_client", "_from_model", "_model", "_seconds_max", "_timer")

    def __init__(
        self,
        owner: ExchangeOwner,
        cycle: ResponseCycle,
        route: PreparedRoute,
        parsed: ParsedRequest,
        work: Work,
        holder: CallHolder | None,
        *,
        seconds_max: float | None,
    ) -> None:
        """`seconds_max` bounds the open WebSocket; None: its job or session does."""
        super().__init__(owner, cycle, route, parsed, work, holder)
        self._from_client = FrameTracker()
        self._from_model = FrameTracker()
        self._client_finished = False
        self._model: UpstreamConnection | None = None
        self._seconds_max = seconds_max
        self._timer: asyncio.TimerHandle | None = None

    # --- the handshake

    def switched(self, head: ResponseHead, connection: UpstreamConnection, early: bytes) -> asyncio.Protocol:
        """The model server has accepted the WebSocket."""
        self._model = connection
        self._head_sent = True
        lines = [status_line(head.status), b"connection: Upgrade\r\nupgrade: websocket\r\n"]
        for name, value in head.headers:
            if name not in _NOT_FORWARDED:
                lines += (name, b": ", value, b"\r\n")
        if head.header(b"sec-websocket-protocol") is None and websocket_protocols(self.cycle.request)[1]:
            lines.append(b"sec-websocket-protocol: %b\r\n" % PROTOCOL.encode())
        lines += (self._owner.worker_header, b"\r\n")
        self.cycle.write(b"".join(lines))
        if self._seconds_max is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds_max, self._over_time)
        self.cycle.switch_protocols(self)
        if early:
            self.model_data(early)
        return _ModelSide(self, connection)

    # --- the client

    def client_data(self, data: bytes) -> None:
        """Pass bytes to the model server."""
        if self._model is not None and not self._ended:
            self._from_client.feed(data)
            self._model.transport.write(data)

    def client_finished(self) -> None:
        """The client sends no more: the model server may still answer, within a time limit."""
        self._client_finished = True
        if self._model is not None and not self._ended and self._model.transport.can_write_eof():
            self._model.transport.write_eof()
            self._start_timer(_FINISH_SECONDS)

    def client_disconnected(self) -> None:
        """End the model server's side too."""
        model = self._model
        if model is None:
            super().client_disconnected()
        elif not self._ended:
            orderly = self._from_client.closed or self._from_model.closed
            self._end(Outcome.SUCCESS if orderly else Outcome.CANCELLED)
            if orderly:
                model.transport.close()
            else:
                model.transport.abort()

    def pause_writing(self) -> None:
        """The client is slower than the model."""
        if self._model is not None:
            self._model.pause()
        else:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._model is not None:
            self._model.resume()
        else:
            super().resume_writing()

    # --- the model server, after the handshake

    def model_data(self, data: bytes) -> None:
        """Pass bytes to the client."""
        if not self._ended:
            self._from_model.feed(data)
            self.cycle.write(data)

    def model_closed(self) -> None:
        """The model server has closed the connection."""
        if self._ended:
            return
        if self._from_model.closed or self._from_client.closed:
            self._end(Outcome.SUCCESS)
        elif self._client_finished:
            self._end(Outcome.CANCELLED)
        else:
            self._end(Outcome.ERROR)
            reason = "the model server closed the connection without a close frame"
            self._owner.model_failed(UpstreamError("closed", reason))
            self._tell_client(FAILED, reason)
        self.cycle.complete()

    # --- the end

    def cancel(self, outcome: Outcome, problem: Problem) -> None:
        """Close both sides, with a close frame where no frame would be cut."""
        model = self._model
        if model is None:
            super().cancel(outcome, problem)
            return
        if self._ended:
            return
        self._end(outcome)
        code = _CLOSE_CODES.get(problem.code, POLICY)
        self._tell_client(code, problem.code)
        client = self._from_client
        if client.between_frames and not client.closed and not self._client_finished:
            model.transport.write(close_frame(code, problem.code, masked=True))
        model.transport.close()
        self.cycle.complete()

    def _tell_client(self, code: int, reason: str) -> None:
        if self._from_model.between_frames and not self._from_model.closed:
            self.cycle.write(close_frame(code, reason))

    def _over_time(self) -> None:
        self.cancel(Outcome.SUCCESS, Problem(410, "websocket_over_time", "the WebSocket was open too long"))

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._over_time)

    def _end(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._end(outcome)


class _ModelSide(asyncio.Protocol):
    """The model server's connection after the handshake."""

    __slots__ = ("_connection", "_exchange")

    def __init__(self, exchange: WebSocketExchange, connection: UpstreamConnection) -> None:
        self._exchange = exchange
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._exchange.model_data(data)

    def pause_writing(self) -> None:
        self._exchange.cycle.set_reading(False)

    def resume_writing(self) -> None:
        self._exchange.cycle.set_reading(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost()
        self._exchange.model_closed()
