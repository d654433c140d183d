"""`/openai/<endpoint>/v1/…`: a door for plain OpenAI clients. Routes, waits, calls the worker, streams its answer back."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import aiohttp
import structlog
from aiohttp import web

from engine.api.openai_queue import OpenAIQueueEntry
from engine.api.parsing import FastRouteRequest, answer
from engine.api.request_buffer import BufferedBody, RequestBuffer
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.routing.endpoint import Endpoint
from stoker_wire.parsing.numbers import read_number
from stoker_wire.picklable import PicklableError
from stoker_wire.problem import Problem
from stoker_wire.route import COST_MAX, DEFAULT_COST

log = structlog.get_logger("engine.api.openai_api")

WAIT_SECONDS_MAX = 600.0
"""How long a plain client waits for a worker: it knows no polling, so the door polls for it."""
ATTEMPTS_MAX = 4
_PAUSE_SECONDS = 1.0
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
_PATHS = ("chat/completions", "completions", "embeddings", "responses", "rerank")
_COST_HEADER = "X-Stoker-Cost"
_PASSED_BACK = ("Content-Type", "Content-Encoding", "Server-Timing", "X-Stoker-Worker")
_NO_CONTENT = 204


class OpenAIApi:
    """Plain clients in, routed calls out. A client that leaves cancels the worker's call."""

    def __init__(self, engine: Engine, desk: RouteApi) -> None:
        self._engine = engine
        self._desk = desk
        self._bodies = RequestBuffer(engine.settings.limits)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._engine.settings.worker_ssl_context or True)
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=600)
        showing = aiohttp.TraceConfig()
        showing.on_request_headers_sent.append(_ticket_shown)
        # What one worker sets as a cookie is no business of the next, and least of all of another tenant's.
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[showing],
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
        with (
            BufferedBody(self._bodies, endpoint.memo.owner) as body,
            OpenAIQueueEntry(self._engine, self._desk, endpoint) as turn,
        ):
            await body.arrive(request)
            return await self._serve(request, endpoint, turn, path, body)

    async def _serve(
        self, request: web.Request, endpoint: Endpoint, turn: OpenAIQueueEntry, path: str, body: BufferedBody
    ) -> web.StreamResponse:
        cost = _cost_of(request)
        request_idx, failed_url = 0, ""
        fingerprint = body.fingerprint(f"/v1/{path}")
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        for attempt in range(ATTEMPTS_MAX):
            route = await self._worker(endpoint, turn, cost, request_idx, failed_url, fingerprint, deadline)
            request_idx = route["request_idx"]
            try:
                return await self._forward(request, turn, route, path, body, last=attempt + 1 == ATTEMPTS_MAX)
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
        self,
        endpoint: Endpoint,
        turn: OpenAIQueueEntry,
        cost: float,
        request_idx: int,
        failed_url: str,
        fingerprint: str,
        deadline: float,
    ) -> dict[str, Any]:
        while True:
            asked = FastRouteRequest(
                endpoint=endpoint.name,
                cost=cost,
                request_idx=request_idx,
                failed_url=failed_url,
                fingerprint=fingerprint,
            )
            began = time.monotonic()
            route = await turn.route(asked)
            if "url" in route:
                return route
            if time.monotonic() > deadline or self._engine.stopping:
                waited = "no worker" if self._engine.stopping else f"no worker in {WAIT_SECONDS_MAX:.0f} s"
                said = f"{waited}: {route['status']}"
                raise Problem(503, "no_worker", said, headers={"Retry-After": "5"})
            request_idx, failed_url = route["request_idx"], ""
            if time.monotonic() - began < _PAUSE_SECONDS:  # answered at once: it wants a pause
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _forward(
        self,
        request: web.Request,
        turn: OpenAIQueueEntry,
        route: dict[str, Any],
        path: str,
        body: BufferedBody,
        *,
        last: bool,
    ) -> web.StreamResponse:
        async with await self._ask(turn, route, path, body) as reply:
            _refuse_what_is_no_answer(reply.status)
            if reply.status in _RETRYABLE and not last:
                raise _WorkerFailed(f"status {reply.status}", unreachable=False)
            if 400 <= reply.status < 500 and "X-Stoker-Worker" not in reply.headers:
                turn.refused()  # by the worker: what the model says comes with that header
            with _faults_of_the_worker():
                first = await reply.content.readany()
            body.drop()
            return await _stream_back(request, reply, first)

    async def _ask(
        self, turn: OpenAIQueueEntry, route: dict[str, Any], path: str, body: BufferedBody
    ) -> aiohttp.ClientResponse:
        """The head of the worker's answer.

        Raises:
            _WorkerFailed: it has none.
        """
        if self._session is None:
            raise RuntimeError("the door is not open")
        envelope = body.enveloped(route)
        # The ticket is all that opens the worker: the endpoint's key stays here. A worker is a machine of third parties,
        # so where it says to look instead is not followed: it could point into the engine's own network.
        headers = {"Content-Type": "application/json", "Content-Length": str(len(envelope))}
        with _faults_of_the_worker():
            return await self._session.post(
                f"{route['url']}/v1/{path}",
                data=envelope.parts(),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=turn,
            )


class _WorkerFailed(PicklableError, Exception):
    """The worker failed before a byte of its answer was passed on."""

    def __init__(self, message: str, *, unreachable: bool) -> None:
        self.unreachable = unreachable
        super().__init__(message)


@contextlib.contextmanager
def _faults_of_the_worker() -> Iterator[None]:
    """Only around what the worker does: the client's connection breaks with the same types of faults."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as fault:
        answered = isinstance(fault, aiohttp.ClientResponseError | aiohttp.ClientPayloadError)
        raise _WorkerFailed(type(fault).__name__, unreachable=not answered) from None


def _refuse_what_is_no_answer(status: int) -> None:
    if 300 <= status < 400:
        said = f"the model server answered with a redirect ({status}), which is not followed"
        raise Problem(502, "worker_redirects", said)
    if status < 200:
        said = f"the model server answered with status {status}, which is no answer to this call"
        raise Problem(502, "worker_answers_nothing", said)


async def _stream_back(
    request: web.Request, reply: aiohttp.ClientResponse, first: bytes
) -> web.StreamResponse:
    """Pass the answer on. A client whose connection breaks ends the call here, and no worker is blamed for it."""
    headers = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
    response = web.StreamResponse(status=reply.status, headers=headers)
    if reply.content_length is not None and reply.status != _NO_CONTENT:
        response.content_length = reply.content_length
    await response.prepare(request)
    chunk = first
    while chunk:
        await response.write(chunk)
        try:
            chunk = await reply.content.readany()
        except (aiohttp.ClientError, TimeoutError):
            # The answer has begun: it cannot become a problem any more. Breaking the connection tells the client.
            log.warning("openai_worker_broke_off", path=request.path)
            if request.transport is not None:
                request.transport.abort()
            return response
    await response.write_eof()
    return response


async def _ticket_shown(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
) -> None:
    turn: OpenAIQueueEntry = context.trace_request_ctx
    turn.show_ticket()


def _cost_of(request: web.Request) -> float:
    given = request.headers.getall(_COST_HEADER, [])
    if not given:
        return DEFAULT_COST
    text = ", ".join(given)
    cost = read_number(text)
    if cost is None or not 0 <= cost <= COST_MAX:
        raise Problem(
            400,
            "invalid_args",
            f"{_COST_HEADER}: must be a number from 0 to {COST_MAX:g} (got {text[:40]!r})",
        )
    return cost
