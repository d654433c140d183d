"""An endpoint: requests, streams, sessions, bounded concurrency, requests in the background, and management."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Self, Unpack

from stoker.bounded_map import map_bounded
from stoker.management.endpoints import Endpoints
from stoker.management.records import EndpointRecord, Logs, WorkerRecord
from stoker.requests.answer import Answer
from stoker.requests.job import Job, JobOptions
from stoker.requests.progress import Progress
from stoker.requests.request import Request, RequestOptions
from stoker.requests.sender import RequestSender
from stoker.requests.session import Session, SessionOptions, SessionSpec
from stoker.requests.stream import Stream
from stoker.requests.submission import BackgroundRequests, Submission
from stoker_wire.route import DEFAULT_COST


class RoutingKey:
    """The endpoint's routing key. It is looked up again when the engine refuses it, for example after a rotation."""

    def __init__(self, key: str, look_up: Callable[[], Awaitable[str | None]]) -> None:
        self._key = key
        self._look_up = look_up
        self._renewing = asyncio.Lock()

    async def current(self) -> str:
        """The key."""
        return self._key

    async def renew(self, refused: str) -> str | None:
        """Another key after the engine refused this one; None if there is no other."""
        async with self._renewing:  # many requests refused at once share one look-up
            if self._key != refused:
                return self._key
            found = await self._look_up()
            if found in {None, "", refused}:
                return None
            self._key = found or ""
            return self._key


class Endpoint:
    """A handle on an endpoint; `Serverless.get_endpoint` makes it."""

    def __init__(
        self,
        *,
        name: str,
        endpoint_id: int,
        sender: RequestSender,
        management: Endpoints,
        background: BackgroundRequests,
    ) -> None:
        self.name = name
        self.id = endpoint_id
        self._sender = sender
        self._management = management
        self._background = background

    def __repr__(self) -> str:
        return f"<Endpoint {self.id} {self.name}>"

    async def request(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> Answer:
        """Send a request and wait for the whole answer.

        Args:
            route: the worker's handler, e.g. `/v1/completions`.
            payload: sent to the model as JSON.
            options: `cost`, `timeout` (s), `retry`, `idempotency_key`, `affinity`, `on_wait`; instead of a payload
                `content` with `content_type`, or `files` and `data`. See `stoker.Request`.

        Raises:
            StokerError: see `stoker.errors`.
        """
        return await self._sender.send(Request(route=route, payload=payload, **options))

    def stream(
        self,
        route: str,
        payload: Any = None,
        *,
        idle_timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """A streamed answer: `async with endpoint.stream(…) as stream: async for event in stream: …`.

        Options as of `request`. `timeout` bounds the time to the first byte, `idle_timeout` (None: the same) the time
        between two chunks.
        """
        request = Request(route=route, payload=payload, **options)
        return self._sender.stream(request, idle_timeout=idle_timeout)

    def session(self, **options: Unpack[SessionOptions]) -> Session:
        """A worker reserved for one caller: `async with endpoint.session(cost=…, lifetime=…) as session: …`.

        The session occupies its worker with `cost`. It expires after `lifetime` seconds (default 60); each request
        extends it by as much. When it closes, the worker posts `on_close_payload` to `on_close_route`, which must be
        one of its routes. The workload of that call must be within `cost`.

        Raises:
            Invalid: `lifetime` is not above 0, or `on_close_route` is no path.
        """
        return Session(self._sender, SessionSpec(**options).request())

    def job(self, *, cost: float = DEFAULT_COST, **options: Unpack[JobOptions]) -> Job:
        """One worker for the calls of one job: `async with endpoint.job(cost=…) as job: … job.url …`.

        For clients of other APIs, such as ComfyUI's: `job.url` is the base address of their calls. `cost` must cover
        the workload of all of them.
        """
        return Job(self._sender, Request(route="/", cost=cost, **options))

    def submit(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> Submission:
        """`request` in the background; closing the client cancels it."""
        request = Request(route=route, payload=payload, **options)
        progress = Progress(on_wait=request.on_wait)
        return Submission(self._background.start(self._sender.send(request, progress=progress)), progress)

    def map(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        concurrency: int = 64,
        ordered: bool = True,
        return_errors: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """The answers to many requests, at most `concurrency` at a time, in order or as they complete.

        The first error ends the iteration and cancels the rest. With `return_errors`, errors are yielded in the place
        of answers.
        """
        return map_bounded(
            requests,
            self._sender.send,
            concurrency=concurrency,
            ordered=ordered,
            return_errors=return_errors,
        )

    async def record(self) -> EndpointRecord:
        """Its parameters now."""
        return await self._management.get(self.id)

    async def update(self, **parameters: Any) -> Self:
        """Change parameters, e.g. `max_workers=4`; the others stay as they are."""
        await self._management.update(self.id, **parameters)
        return self

    async def delete(self) -> None:
        """Delete the endpoint: every worker is destroyed."""
        await self._management.delete(self.id)

    async def workers(self) -> list[WorkerRecord]:
        """Its workers."""
        return await self._management.workers(self.id)

    async def logs(self, *, tail: int | None = None) -> Logs:
        """Its log, in four levels of detail."""
        return await self._management.logs(self.id, tail=tail)

    async def status(self) -> dict[str, Any]:
        """Load against capacity, the queue, the workers, and why requests wait."""
        return await self._management.status(self.id)

    async def decisions(self, *, tail: int = 20) -> list[dict[str, Any]]:
        """The last decisions, each with its reason."""
        return await self._management.decisions(self.id, tail=tail)

    async def costs(self) -> dict[str, Any]:
        """Dollars by worker state."""
        return await self._management.costs(self.id)
