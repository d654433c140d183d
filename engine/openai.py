"""`/openai/<endpoint>/v1/…`: a door for plain OpenAI clients. Routes, waits, calls the worker, streams its answer back."""

import asyncio
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
import structlog
from aiohttp import web

from engine.endpoints import Endpoint
from engine.engine import Engine
from engine.parsing import FastRouteRequest, answer, bounded_arrival, json_object
from engine.routing import RouteDesk
from stoker_wire.problem import Problem
from stoker_wire.route import COST_MAX, DEFAULT_COST

log = structlog.get_logger("engine.openai")

WAIT_SECONDS_MAX = 600.0
"""How long a plain client waits for a worker: it knows no polling, so the door polls for it."""
ATTEMPTS_MAX = 4
_PAUSE_SECONDS = 1.0
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
_PATHS = ("chat/completions", "completions", "embeddings", "responses", "rerank")
_COST_HEADER = "X-Stoker-Cost"
_PASSED_BACK = ("Content-Type", "Server-Timing", "X-Stoker-Worker")


class OpenAIDoor:
    """Plain clients in, routed calls out. A client that leaves cancels the worker's call."""

    def __init__(self, engine: Engine, desk: RouteDesk) -> None:
        self._engine = engine
        self._desk = desk
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._engine.settings.worker_ssl_context or True)
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=600)
        # What one worker sets as a cookie is no business of the next, and least of all of another tenant's.
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get("/openai/{endpoint}/v1/models", self.models),
            web.post("/openai/{endpoint}/v1/{path:.+}", self.call),
        ]

    async def models(self, request: web.Request) -> web.Response:
        """One model: the endpoint. Which model its workers run is their business."""
        endpoint = await self._endpoint(request)
        created = int(endpoint.memo.created_at)
        model = {"id": endpoint.name, "object": "model", "created": created, "owned_by": "stoker"}
        return answer({"object": "list", "data": [model]})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Route, call, stream back; a worker that fails before its first byte is replaced by another."""
        endpoint = await self._endpoint(request)
        path = request.match_info["path"].strip("/")
        if path not in _PATHS:
            raise Problem(404, "not_found", f"/v1/{path[:80]} is not served; these are: {', '.join(_PATHS)}")
        limit = self._engine.settings.limits.openai_body_bytes_max
        payload = json_object(await _read(request, limit))
        cost = _cost_of(request)
        request_idx, failed_url = 0, ""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        for attempt in range(ATTEMPTS_MAX):
            route = await self._worker(endpoint, cost, request_idx, failed_url, deadline)
            request_idx = route["request_idx"]
            try:
                return await self._forward(request, route, path, payload, last=attempt + 1 == ATTEMPTS_MAX)
            except _WorkerFailed as fault:
                log.warning(
                    "openai_worker_failed",
                    endpoint=endpoint.name,
                    worker=route["worker_id"],
                    error=str(fault),
                )
                failed_url = route["url"] if fault.unreachable else ""
        raise Problem(
            502, "workers_failed", f"{ATTEMPTS_MAX} workers failed this request; see the endpoint's logs"
        )

    async def _endpoint(self, request: web.Request) -> Endpoint:
        endpoint = await self._desk.locate(request, request.match_info["endpoint"])
        if endpoint is None:
            said = "the engine has just started and does not know its endpoints yet; try again"
            raise Problem(503, "starting", said, headers={"Retry-After": "2"})
        return endpoint

    async def _worker(
        self, endpoint: Endpoint, cost: float, request_idx: int, failed_url: str, deadline: float
    ) -> dict[str, Any]:
        while True:
            asked = FastRouteRequest(
                endpoint=endpoint.name, cost=cost, request_idx=request_idx, failed_url=failed_url
            )
            began = time.monotonic()
            route = await self._desk.route(endpoint, asked)
            if "url" in route:
                return route
            if time.monotonic() > deadline or self._engine.stopping:
                said = f"no worker in {WAIT_SECONDS_MAX:.0f} s: {route['status']}"
                raise Problem(503, "no_worker", said, headers={"Retry-After": "5"})
            request_idx, failed_url = route["request_idx"], ""
            if time.monotonic() - began < _PAUSE_SECONDS:  # answered at once: it wants a pause
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _forward(
        self,
        request: web.Request,
        route: dict[str, Any],
        path: str,
        payload: dict[str, Any],
        *,
        last: bool,
    ) -> web.StreamResponse:
        if self._session is None:
            raise RuntimeError("the door is not open")
        body = msgspec.json.encode({"auth_data": route, "session_id": None, "payload": payload})
        # The ticket is all that opens the worker: the endpoint's key stays here. A worker is a machine of third parties,
        # so where it says to look instead is not followed: it could point into the engine's own network.
        headers = {"Content-Type": "application/json"}
        url = f"{route['url']}/v1/{path}"
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                if 300 <= reply.status < 400:
                    said = (
                        f"the model server answered with a redirect ({reply.status}), which is not followed"
                    )
                    raise Problem(502, "worker_redirects", said)
                if reply.status in _RETRYABLE and not last:
                    raise _WorkerFailed(f"status {reply.status}", unreachable=False)
                return await _stream_back(request, reply)
        except (aiohttp.ClientConnectionError, TimeoutError) as fault:
            raise _WorkerFailed(type(fault).__name__, unreachable=True) from None


class _WorkerFailed(Exception):
    """The worker failed before a byte of its answer was passed on."""

    def __init__(self, message: str, *, unreachable: bool) -> None:
        self.unreachable = unreachable
        super().__init__(message)


async def _stream_back(request: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
    if "Content-Encoding" in reply.headers:
        headers["Content-Encoding"] = reply.headers["Content-Encoding"]
    response = web.StreamResponse(status=reply.status, headers=headers)
    if reply.content_length is not None:
        response.content_length = reply.content_length
    first = await reply.content.readany()
    await response.prepare(request)
    try:
        chunk = first
        while chunk:
            await response.write(chunk)
            chunk = await reply.content.readany()
    except (aiohttp.ClientError, TimeoutError):
        # The answer has begun: it cannot become a problem any more. Breaking the connection tells the client.
        log.warning("openai_worker_broke_off", path=request.path)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _read(request: web.Request, limit: int) -> bytes:
    """The body, up to a limit of its own: prompts with images are larger than control calls."""
    chunks, size = [], 0
    async with bounded_arrival(request):
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise Problem(413, "body_too_large", f"the body is larger than {limit} bytes")
            chunks.append(chunk)
    return b"".join(chunks)


def _cost_of(request: web.Request) -> float:
    text = request.headers.get(_COST_HEADER)
    if text is None:
        return DEFAULT_COST
    try:
        cost = float(text)
    except ValueError:
        cost = -1.0
    if not 0 <= cost <= COST_MAX:
        raise Problem(
            400,
            "invalid_args",
            f"{_COST_HEADER}: must be a number from 0 to {COST_MAX:g} (got {text[:40]!r})",
        )
    return cost
