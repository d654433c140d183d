"""The answer to a client of a model API: passed on from a worker, with signs of life while the request waits."""

import asyncio
import json
from collections.abc import Callable
from enum import Enum

import structlog

from engine.api.keys import text
from engine.proxy.dialects import Dialect
from engine.proxy.errors import error_body, logged_path
from engine.proxy.headers import to_client
from engine.proxy.worker_client import WorkerAnswer, WorkerFailed
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import BODILESS, Header
from stoker_wire.http1.response_cycle import ResponseCycle

log = structlog.get_logger("engine.proxy.client_answer")

FIRST_SIGN_SECONDS = 2.0
"""An answer that begins sooner keeps its own status and header fields."""
SIGN_SECONDS = 5.0
"""Proxies give up after 30 to 60 s without a byte."""
_EVENT_STREAM = b"text/event-stream"
_SPACE = b" "


class SignsOfLife(Enum):
    """The answer that a client receives while its request waits."""

    NONE = "none"
    COMMENTS = "comments"
    """Server-sent events: comments with the reason and the expected time, which clients skip."""
    SPACES = "spaces"
    """JSON: white space before the value, or before the first line of a stream of JSON lines."""


class ClientAnswer:
    """One answer (`ResponseListener`). Its head goes out with the worker's head, or with the first sign of life."""

    def __init__(self, cycle: ResponseCycle, cors: tuple[Header, ...]) -> None:
        """`cors` lets a web page read the answer."""
        self.cycle = cycle
        self.cors = cors
        self.signs = SignsOfLife.NONE
        self.reason: Callable[[], str] = str
        """Why the request waits."""
        self.dialect = Dialect.OPENAI
        self.status = 0
        """0: no head has been sent."""
        self.task: asyncio.Task[None] | None = None
        """Cancelled when the client disconnects."""
        self._answered: WorkerAnswer | None = None
        self._timer: asyncio.TimerHandle | None = None
        cycle.listener = self

    def __repr__(self) -> str:
        return f"<ClientAnswer {self.signs.value}, {'begun' if self.begun else 'not begun'}>"

    @property
    def begun(self) -> bool:
        """Whether status and header fields are sent."""
        return self.status > 0

    @property
    def may_begin_early(self) -> bool:
        """Whether its head may go out before the worker's head is known."""
        return self.signs is not SignsOfLife.NONE

    # --- the client

    def client_disconnected(self) -> None:
        """Cancel the call."""
        self.stop_signs()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """The client is slower than the worker."""
        if self._answered is not None:
            self._answered.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._answered is not None:
            self._answered.resume()

    # --- signs of life

    def start_signs(self) -> None:
        """Send signs of life until `stop_signs`."""
        if self.may_begin_early:
            self._timer = asyncio.get_running_loop().call_later(FIRST_SIGN_SECONDS, self._send_sign)

    def stop_signs(self) -> None:
        """Send no more signs of life."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_sign(self) -> None:
        if not self.begun:
            self._begin()
        sign = f": waiting: {self.reason()}\n\n".encode()
        self.cycle.write_piece(sign if self.signs is SignsOfLife.COMMENTS else _SPACE)
        self._timer = asyncio.get_running_loop().call_later(SIGN_SECONDS, self._send_sign)

    def _begin(self) -> None:
        json_kind = b"application/x-ndjson" if self.dialect is Dialect.OLLAMA else b"application/json"
        kind = _EVENT_STREAM if self.signs is SignsOfLife.COMMENTS else json_kind
        self.status = 200
        fields = (
            (b"content-type", kind),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self.cors,
        )
        self.cycle.start(self.status, fields)

    # --- the answer

    async def pass_on(self, answered: WorkerAnswer, first: bytes) -> None:
        """Pass the worker's answer on. If the client's connection breaks, no worker is marked as failed."""
        cycle = self.cycle
        if self.begun and self.signs is SignsOfLife.COMMENTS and not _is_event_stream(answered):
            await self._as_event(answered, first)
            return
        self._answered = answered  # before the first piece, which may fill the client's buffer
        if not self.begun:
            self.status = answered.status
            fields = [*to_client(answered.headers), *self.cors]
            if answered.ended and not answered.has_more and cycle.request.method != b"HEAD":
                cycle.respond(answered.status, first, content_type=None, headers=fields)
                return
            length = None if answered.status in BODILESS else answered.length
            cycle.start(answered.status, fields, length=length, first=first)
        else:
            cycle.write_piece(first)
        try:
            await answered.pass_to(cycle.write_piece)
        except WorkerFailed:
            self._cut()
        else:
            cycle.finish()

    def fail(self, problem: Problem) -> None:
        """The error, in an answer that has begun."""
        self._end_with(json.dumps(error_body(problem, self.dialect)).encode(), is_error=True)

    async def _as_event(self, answered: WorkerAnswer, first: bytes) -> None:
        """A complete answer, usually an error, as an event of the stream that has begun."""
        try:
            body = first + await answered.read_all()
        except WorkerFailed:
            self._cut()
            return
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if answered.status >= 400 and not (isinstance(value, dict) and value.get("error")):
            said = body[:500].decode("utf-8", "replace").strip()
            message = said or f"the model answered {answered.status}"
            self.fail(Problem(answered.status, "model_error", message))
            return
        said_json = json.dumps(value).encode() if value is not None else b""
        self._end_with(said_json, is_error=answered.status >= 400)

    def _end_with(self, body: bytes, *, is_error: bool) -> None:
        if body:
            # Anthropic's clients know an error by the name of its event.
            name = b"event: error\n" if is_error and self.dialect is Dialect.ANTHROPIC else b""
            event = name + b"data: " + body + b"\n\n"
            self.cycle.write_piece(event if self.signs is SignsOfLife.COMMENTS else body)
        self.cycle.finish()

    def _cut(self) -> None:
        """The answer has begun, so it cannot become an error any more. A broken connection tells the client."""
        log.warning("openai_worker_broke_off", path=logged_path(text(self.cycle.request.path)))
        self.cycle.abort()


def _is_event_stream(answered: WorkerAnswer) -> bool:
    kind = answered.header(b"content-type") or ""
    return answered.status < 400 and kind.partition(";")[0].strip().lower() == _EVENT_STREAM.decode()
