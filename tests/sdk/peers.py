"""An engine and a worker on real sockets that say what a test tells them to."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ACCOUNT_KEY = "account-key-of-a-person"
ENDPOINT_KEY = "sk-ep-7-1-0123456789abcdef"

Say = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


def json_reply(body: Any, status: int = 200, **headers: str) -> Say:
    """Answer with JSON."""

    async def say(_: web.Request, __: Any) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return say


def problem(status: int, code: str, message: str, **headers: str) -> Say:
    """Answer as stoker's servers say that something is wrong."""
    return json_reply(
        {"success": False, "error": code, "msg": message, "error_msg": message}, status, **headers
    )


def raw_reply(body: bytes, content_type: str, status: int = 200, **headers: str) -> Say:
    """Answer with bytes."""

    async def say(_: web.Request, __: Any) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"Content-Type": content_type, **headers})

    return say


def chunks(*parts: bytes, content_type: str = "text/event-stream", then_drop: bool = False) -> Say:
    """Answer with a chunked body; at its end, in order or by breaking the connection."""

    async def say(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if then_drop:
            _break(request)
        return response

    return say


def drop() -> Say:
    """Break the connection before any byte of an answer."""

    async def say(request: web.Request, _: Any) -> web.StreamResponse:
        _break(request)
        return web.Response()

    return say


def half_a_body() -> Say:
    """Promise a hundred bytes, send ten, break the connection."""

    async def say(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"half": "')
        _break(request)
        return response

    return say


def _break(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@dataclass
class Seen:
    """One request as a server saw it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass(repr=False)
class Peers:
    """The engine and one worker; what a test scripts comes first, then they serve as they should."""

    port: int = 0
    worker_port: int = 0
    routing: deque[Say] = field(default_factory=deque)
    working: deque[Say] = field(default_factory=deque)
    work: Say | None = None
    """What the worker does when nothing is scripted; None: it echoes."""
    routes: list[Seen] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)
    console: list[tuple[str, Seen]] = field(default_factory=list)
    consoling: dict[tuple[str, str], Say] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    endpoint_key: str = ENDPOINT_KEY
    working_now: int = 0
    working_most: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """A client left while the worker was at its request."""
    _index: int = 0
    _engine: web.AppRunner | None = None
    _worker: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<Peers at {self.url}>"  # what they have seen would fill a report

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker_url(self) -> str:
        return f"http://127.0.0.1:{self.worker_port}"

    def endpoint(self, name: str = "llm", number: int = 7, **parameters: Any) -> None:
        """One more endpoint on the engine."""
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

    def route_to(self, url: str | None = None, **fields: Any) -> Say:
        """The engine names a worker."""

        async def say(_: web.Request, body: Any) -> web.StreamResponse:
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

        return say

    def wait(self, reason: str = "busy", status: str = "all workers are busy", **fields: Any) -> Say:
        """The engine says to wait."""

        async def say(_: web.Request, body: Any) -> web.StreamResponse:
            self._index += 1
            answer = {
                "endpoint": body["endpoint"],
                "request_idx": body["request_idx"] or self._index,
                "status": status,
                "reason": reason,
                **fields,
            }
            return web.json_response(answer)

        return say

    async def start_engine(self) -> None:
        app = web.Application()
        app.router.add_post("/route/", self._route)
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
        seen = await _see(request)
        self.routes.append(seen)
        if seen.headers.get("Authorization") not in {f"Bearer {self.endpoint_key}", f"Bearer {ACCOUNT_KEY}"}:
            return await problem(401, "unauthorised", "this key opens no endpoint")(request, seen.body)
        if self.routing:
            return await self.routing.popleft()(request, seen.body)
        if seen.body["endpoint"] not in {record["endpoint_name"] for record in self.records}:
            return await problem(404, "endpoint_not_found", "no such endpoint")(request, seen.body)
        return await self.route_to()(request, seen.body)

    async def _work(self, request: web.Request) -> web.StreamResponse:
        seen = await _see(request)
        self.calls.append(seen)
        self.working_now += 1
        self.working_most = max(self.working_most, self.working_now)
        try:
            if self.working:
                return await self.working.popleft()(request, seen.body)
            if self.work is not None:
                return await self.work(request, seen.body)
            return web.json_response(
                {"echo": seen.body["payload"] if isinstance(seen.body, dict) else len(seen.raw)},
                headers={"Server-Timing": "queue;dur=0.25, model;dur=0.5", "X-Stoker-Worker": "42"},
            )
        except asyncio.CancelledError:
            self.hung_up.set()
            raise
        finally:
            self.working_now -= 1

    async def _console(self, request: web.Request) -> web.StreamResponse:
        seen = await _see(request)
        self.console.append((request.method, seen))
        if seen.headers.get("Authorization") != f"Bearer {ACCOUNT_KEY}":
            return await problem(401, "unauthorised", "this key opens nothing")(request, seen.body)
        say = self.consoling.get((request.method, request.path))
        if say is not None:
            return await say(request, seen.body)
        if (request.method, request.path) == ("GET", "/api/v0/endptjobs/"):
            records = [record | {"api_key": self.endpoint_key} for record in self.records]
            return web.json_response({"success": True, "results": records})
        return await problem(404, "not_found", f"no {request.path}")(request, seen.body)


async def _see(request: web.Request) -> Seen:
    raw = await request.read()
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None
    return Seen(request.path, dict(request.query), dict(request.headers), body, raw)


async def _serve(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=2048)
    await site.start()
    return runner, runner.addresses[0][1]
