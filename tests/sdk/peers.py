"""A scriptable fake engine and worker on real sockets."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ACCOUNT_KEY = "account-key-of-a-person"
ENDPOINT_KEY = "sk-ep-7-1-0123456789abcdef"

Reply = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


def json_reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """Answer with JSON."""

    async def reply(_: web.Request, __: Any) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return reply


def problem(status: int, code: str, message: str, **headers: str) -> Reply:
    """Answer with an error in the form of stoker's servers."""
    return json_reply(
        {"success": False, "error": code, "msg": message, "error_msg": message}, status, **headers
    )


def raw_reply(body: bytes, content_type: str, status: int = 200, **headers: str) -> Reply:
    """Answer with bytes."""

    async def reply(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"Content-Type": content_type, **headers})

    return reply


def chunks(*parts: bytes, content_type: str = "text/event-stream", then_drop: bool = False) -> Reply:
    """Answer with a chunked body; `then_drop` breaks the connection instead of ending it."""

    async def reply(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if then_drop:
            _break(request)
        return response

    return reply


def drop() -> Reply:
    """Break the connection before the first byte of an answer."""

    async def reply(request: web.Request, _: Any) -> web.StreamResponse:
        _break(request)
        return web.Response()

    return reply


def half_a_body() -> Reply:
    """Announce a hundred bytes, send ten, break the connection."""

    async def reply(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"half": "')
        _break(request)
        return response

    return reply


def _break(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@dataclass
class ReceivedRequest:
    """One request as a server received it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass(repr=False)
class Peers:
    """The engine and one worker. Scripted replies are used first, in order; then both serve normally."""

    port: int = 0
    worker_port: int = 0
    route_replies: deque[Reply] = field(default_factory=deque)
    worker_replies: deque[Reply] = field(default_factory=deque)
    worker_reply: Reply | None = None
    """The worker's reply when none is scripted; None: it echoes the payload."""
    route_calls: list[ReceivedRequest] = field(default_factory=list)
    worker_calls: list[ReceivedRequest] = field(default_factory=list)
    console_calls: list[tuple[str, ReceivedRequest]] = field(default_factory=list)
    console_replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    endpoint_key: str = ENDPOINT_KEY
    root_pem: str | None = None
    """The root certificate of the workers, which needs no key."""
    root_calls: int = 0
    working_now: int = 0
    working_max: int = 0
    client_disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client disconnects during a request."""
    _index: int = 0
    _engine: web.AppRunner | None = None
    _worker: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<Peers at {self.url}>"  # the recorded requests are too long for a report

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker_url(self) -> str:
        return f"http://127.0.0.1:{self.worker_port}"

    def endpoint(self, name: str = "llm", number: int = 7, **parameters: Any) -> None:
        """Add an endpoint to the engine."""
        self.records.append(
            {
                "id": number,
                "endpoint_name": name,
                "api_key": self.endpoint_key,
                "user_id": 1,
                "created_at": 1.0,
                "endpoint_state": "active",
                "max_workers": 16,
                "cold_workers": 5,
                **parameters,
            }
        )

    def route_to(self, url: str | None = None, **fields: Any) -> Reply:
        """The engine routes to a worker."""

        async def reply(_: web.Request, body: Any) -> web.StreamResponse:
            self._index += 1
            return web.json_response(
                {
                    "url": url or self.worker_url,
                    "signature": "c2ln",
                    "cost": body["cost"],
                    "endpoint": body["endpoint"],
                    "reqnum": self._index,
                    "request_idx": body["request_idx"] or self._index,
                    "ticket": "ticket.of-this-request",
                    "waited_ms": 0.0,
                    "worker_id": 41,
                    **fields,
                }
            )

        return reply

    def wait(self, reason: str = "busy", status: str = "all workers are busy", **fields: Any) -> Reply:
        """The engine answers "wait"."""

        async def reply(_: web.Request, body: Any) -> web.StreamResponse:
            self._index += 1
            answer = {
                "endpoint": body["endpoint"],
                "request_idx": body["request_idx"] or self._index,
                "status": status,
                "reason": reason,
                **fields,
            }
            return web.json_response(answer)

        return reply

    async def start_engine(self) -> None:
        app = web.Application()
        app.router.add_post("/route/", self._route)
        app.router.add_get("/static/jvastai_root.cer", self._root)
        app.router.add_route("*", "/{path:.*}", self._console)
        self._engine, self.port = await _serve(app, self.port)

    async def stop_engine(self) -> None:
        assert self._engine is not None
        await self._engine.cleanup()
        self._engine = None

    async def start_worker(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._work)
        self._worker, self.worker_port = await _serve(app, self.worker_port)

    async def stop(self) -> None:
        for runner in (self._engine, self._worker):
            if runner is not None:
                await runner.cleanup()

    async def _route(self, request: web.Request) -> web.StreamResponse:
        received = await _read(request)
        self.route_calls.append(received)
        if received.headers.get("Authorization") not in {
            f"Bearer {self.endpoint_key}",
            f"Bearer {ACCOUNT_KEY}",
        }:
            return await problem(401, "unauthorised", "this key opens no endpoint")(request, received.body)
        if self.route_replies:
            return await self.route_replies.popleft()(request, received.body)
        if received.body["endpoint"] not in {record["endpoint_name"] for record in self.records}:
            return await problem(404, "endpoint_not_found", "no such endpoint")(request, received.body)
        return await self.route_to()(request, received.body)

    async def _work(self, request: web.Request) -> web.StreamResponse:
        received = await _read(request)
        self.worker_calls.append(received)
        self.working_now += 1
        self.working_max = max(self.working_max, self.working_now)
        try:
            if self.worker_replies:
                return await self.worker_replies.popleft()(request, received.body)
            if self.worker_reply is not None:
                return await self.worker_reply(request, received.body)
            return web.json_response(
                {"echo": received.body["payload"] if isinstance(received.body, dict) else len(received.raw)},
                headers={"Server-Timing": "queue;dur=0.25, model;dur=0.5", "X-Stoker-Worker": "42"},
            )
        except asyncio.CancelledError:
            self.client_disconnected.set()
            raise
        finally:
            self.working_now -= 1

    async def _root(self, request: web.Request) -> web.StreamResponse:
        self.root_calls += 1
        if self.root_pem is None:
            return await problem(404, "no_authority", "no authority")(request, None)
        return web.Response(text=self.root_pem)

    async def _console(self, request: web.Request) -> web.StreamResponse:
        received = await _read(request)
        self.console_calls.append((request.method, received))
        if received.headers.get("Authorization") != f"Bearer {ACCOUNT_KEY}":
            return await problem(401, "unauthorised", "this key opens nothing")(request, received.body)
        reply = self.console_replies.get((request.method, request.path))
        if reply is not None:
            return await reply(request, received.body)
        if (request.method, request.path) == ("GET", "/api/v0/endptjobs/"):
            records = [record | {"api_key": self.endpoint_key} for record in self.records]
            return web.json_response({"success": True, "results": records})
        return await problem(404, "not_found", f"no {request.path}")(request, received.body)


async def _read(request: web.Request) -> ReceivedRequest:
    raw = await request.read()
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None
    return ReceivedRequest(request.path, dict(request.query), dict(request.headers), body, raw)


async def _serve(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=2048)
    await site.start()
    return runner, runner.addresses[0][1]
