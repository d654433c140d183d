"""The answer to a client of the OpenAI API: passed on from a worker, with signs of life while the request waits."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from enum import Enum

import aiohttp
import structlog
from aiohttp import web

from engine.proxy.dialects import Dialect
from engine.proxy.errors import error_body, logged_path
from engine.proxy.headers import to_client
from stoker_wire.problem import Problem

log = structlog.get_logger("engine.proxy.client_answer")

FIRST_SIGN_SECONDS = 2.0
"""An answer that begins sooner keeps its own status and header fields."""
SIGN_SECONDS = 5.0
"""Proxies give up after 30 to 60 s without a byte."""
_EVENT_STREAM = "text/event-stream"
_NO_CONTENT = 204
_SPACE = b" "


class SignsOfLife(Enum):
    """The answer that a client receives while its request waits."""

    NONE = "none"
    COMMENTS = "comments"
    """Server-sent events: comments with the reason and the expected time, which clients skip."""
    SPACES = "spaces"
    """JSON: white space before the value, or before the first line of a stream of JSON lines."""


class ClientAnswer:
    """One answer. Its head goes out with the worker's head, or with the first sign of life."""

    def __init__(
        self,
        request: web.Request,
        signs: SignsOfLife,
        reason: Callable[[], str],
        dialect: Dialect = Dialect.OPENAI,
    ) -> None:
        self._request = request
        self._signs = signs
        self._reason = reason
        self._dialect = dialect
        self._response: web.StreamResponse | None = None

    def __repr__(self) -> str:
        return f"<ClientAnswer {self._signs.value}, {'begun' if self.begun else 'not begun'}>"

    @property
    def begun(self) -> bool:
        """Whether status and header fields are sent."""
        return self._response is not None

    @property
    def may_begin_early(self) -> bool:
        """Whether its head may go out before the worker's head is known."""
        return self._signs is not SignsOfLife.NONE

    @contextlib.contextmanager
    def signs_of_life(self) -> Iterator[Callable[[], None]]:
        """Send signs of life until the function that this yields is called, or the context ends."""
        if not self.may_begin_early:
            yield lambda: None
            return
        task = asyncio.get_running_loop().create_task(self._send_signs(), name="signs of life")
        try:
            yield lambda: None if task.done() else _cancel(task)
        finally:
            task.cancel()

    async def _send_signs(self) -> None:
        await asyncio.sleep(FIRST_SIGN_SECONDS)
        # A client that is gone cancels the handler, and with it this task.
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                response = self._response or await self._begin()
                sign = f": waiting: {self._reason()}\n\n".encode()
                await response.write(sign if self._signs is SignsOfLife.COMMENTS else _SPACE)
                await asyncio.sleep(SIGN_SECONDS)

    async def _begin(self) -> web.StreamResponse:
        json_kind = "application/x-ndjson" if self._dialect is Dialect.OLLAMA else "application/json"
        kind = _EVENT_STREAM if self._signs is SignsOfLife.COMMENTS else json_kind
        headers = {"Content-Type": kind, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response = self._response = web.StreamResponse(headers=headers)
        await response.prepare(self._request)
        return response

    async def pass_on(self, reply: aiohttp.ClientResponse, first: bytes) -> web.StreamResponse:
        """Pass the worker's answer on. If the client's connection breaks, no worker is marked as failed."""
        response = self._response
        if response is None:
            headers = to_client(reply.headers)
            if first and len(first) == reply.content_length:  # aiohttp sends head and body in one piece
                whole = self._response = web.Response(status=reply.status, headers=headers, body=first)
                await whole.prepare(self._request)
                await whole.write_eof()
                return whole
            response = self._response = web.StreamResponse(status=reply.status, headers=headers)
            if reply.content_length is not None and reply.status != _NO_CONTENT:
                response.content_length = reply.content_length
            await response.prepare(self._request)
        elif self._signs is SignsOfLife.COMMENTS and not _is_event_stream(reply):
            return await self._as_event(reply, first)
        chunk = first
        while chunk:
            await response.write(chunk)
            try:
                chunk = await reply.content.readany()
            except (aiohttp.ClientError, TimeoutError):
                return self._cut(response)
        await response.write_eof()
        return response

    async def fail(self, problem: Problem) -> web.StreamResponse:
        """The error, in an answer that has begun."""
        return await self._end_with(json.dumps(error_body(problem, self._dialect)).encode(), is_error=True)

    async def _as_event(self, reply: aiohttp.ClientResponse, first: bytes) -> web.StreamResponse:
        """A complete answer, usually an error, as an event of the stream that has begun."""
        try:
            body = first + await reply.content.read()
        except (aiohttp.ClientError, TimeoutError):
            assert self._response is not None
            return self._cut(self._response)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if reply.status >= 400 and not (isinstance(value, dict) and value.get("error")):
            said = body[:500].decode("utf-8", "replace").strip()
            return await self.fail(
                Problem(reply.status, "model_error", said or f"the model answered {reply.status}")
            )
        said_json = json.dumps(value).encode() if value is not None else b""
        return await self._end_with(said_json, is_error=reply.status >= 400)

    async def _end_with(self, body: bytes, *, is_error: bool) -> web.StreamResponse:
        response = self._response
        assert response is not None, "only an answer that has begun ends so"
        if body:
            # Anthropic's clients know an error by the name of its event.
            name = b"event: error\n" if is_error and self._dialect is Dialect.ANTHROPIC else b""
            event = name + b"data: " + body + b"\n\n"
            await response.write(event if self._signs is SignsOfLife.COMMENTS else body)
        await response.write_eof()
        return response

    def _cut(self, response: web.StreamResponse) -> web.StreamResponse:
        """The answer has begun, so it cannot become an error any more. A broken connection tells the client."""
        log.warning("openai_worker_broke_off", path=logged_path(self._request.path))
        if self._request.transport is not None:
            self._request.transport.abort()
        return response


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()


def _is_event_stream(reply: aiohttp.ClientResponse) -> bool:
    return reply.status < 400 and reply.content_type == _EVENT_STREAM
