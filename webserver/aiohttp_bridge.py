"""Runs the handlers of an aiohttp application on the HTTP server of `stoker_wire.http1`.

aiohttp routes the request and writes the response. Reading, limits and connections are the server's. The request's
body is complete before its handler starts.
"""

import asyncio
from typing import Any, cast

import structlog
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from stoker_wire.errors.problem import Problem
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle

log = structlog.get_logger("webserver.aiohttp_bridge")

_BUFFER_BYTES = 64 * 1024
_NOT_SHOWN = b"expect"
"""The server has answered it. aiohttp would send a second `100 Continue`."""


class AiohttpBridge:
    """Starts a task for each request. When a client disconnects, its handler is cancelled."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<AiohttpBridge {len(self._tasks)} requests>"

    def __call__(self, request: Request, cycle: ResponseCycle) -> None:
        """Handle a request."""
        exchange = _Exchange(self._server, request, cycle)
        task = exchange.task = asyncio.get_running_loop().create_task(exchange.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Exchange(BaseProtocol):
    """One request, in the place of aiohttp's connection."""

    __slots__ = ("_cycle", "_request", "_server", "_writer", "max_field_size", "max_headers", "task")

    def __init__(self, server: web.Server, request: Request, cycle: ResponseCycle) -> None:
        super().__init__(asyncio.get_running_loop())
        self._server = server
        self._request = request
        self._cycle = cycle
        self.transport = cycle.transport
        self.task: asyncio.Task[None]
        self.max_field_size, self.max_headers = 8190, 128
        cycle.listener = self

    # --- what aiohttp's request reads of its connection

    @property
    def ssl_context(self) -> Any:
        return self._cycle.transport.get_extra_info("sslcontext")

    @property
    def peername(self) -> Any:
        return self._cycle.transport.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        return self._cycle.transport.get_extra_info("sockname")

    def pause_reading(self) -> None:
        """Nothing: the body is complete."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing: the body is complete."""

    def set_parser(self, parser: Any, *_: Any) -> None:
        """Give what follows a handshake to the parser."""
        parser.feed_data(self._cycle.take_early())

    # --- the client

    def client_disconnected(self) -> None:
        """Cancel the handler."""
        self.connection_lost(None)
        self.task.cancel()

    # --- the request

    async def run(self) -> None:
        """Run the handler and end the response."""
        request = self._read()
        response: web.StreamResponse
        try:
            try:
                response = await self._server.request_handler(request)
            except web.HTTPException as answered:
                response = answered
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            self._cycle.abort()
            return
        except Exception as fault:  # noqa: BLE001 - the last resort; the application's middleware answers faults
            log.error("request_failed", error=type(fault).__name__)
            self._fail()
            return
        if self.transport is not None:
            self._request.keep_alive = self._request.keep_alive and bool(response.keep_alive)
            self._cycle.complete()

    def _fail(self) -> None:
        if self.transport is None or self._writer.output_size:
            self._cycle.abort()
        else:
            message = "the request failed; see the log of this process"
            self._cycle.respond_problem(Problem(500, "internal_error", message))

    def _read(self) -> web.BaseRequest:
        request = self._request
        fields: CIMultiDict[str] = CIMultiDict()
        for name, value in request.headers:
            if name != _NOT_SHOWN:
                fields.add(name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))
        target = request.path + (b"?" + request.query if request.query else b"")
        text = target.decode("utf-8", "surrogateescape")
        message = RawRequestMessage(
            method=request.method.decode(),
            path=text,
            version=HttpVersion10 if request.http_1_0 else HttpVersion11,
            headers=CIMultiDictProxy(fields),
            raw_headers=tuple(request.headers),
            should_close=not self._cycle.stays_open,
            compression=None,
            upgrade=request.websocket,
            chunked="transfer-encoding" in fields,
            url=_url(text),
        )
        payload = EMPTY_PAYLOAD
        if request.body:
            payload = StreamReader(self, _BUFFER_BYTES, loop=self._loop)
            payload.feed_data(request.body)
            payload.feed_eof()
        self._writer = StreamWriter(self, self._loop)
        # aiohttp's request reads only what this class has.
        connection = cast("RequestHandler", self)
        return self._server.request_factory(message, payload, connection, self._writer, self.task)


def _url(target: str) -> URL:
    if not target.startswith("/"):  # "*" of OPTIONS, or an authority; no route has it
        return URL.build(path="/" + target, encoded=True)
    path, _, fragment = target.partition("#")
    path, _, query = path.partition("?")
    return URL.build(path=path, query_string=query, fragment=fragment, encoded=True)
