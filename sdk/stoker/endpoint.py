"""An endpoint as its users see it: requests, streams, sessions, many at once, in the background."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from stoker.errors import Invalid
from stoker.management.records import EndpointRecord, Logs, WorkerRecord
from stoker.requests.answer import Answer, answer_of
from stoker.requests.attempts import Placed, RequestAttempts
from stoker.requests.backoff import NO_RETRY
from stoker.requests.body import check_path, make_body
from stoker.requests.bounded_map import map_bounded
from stoker.requests.progress import OnWait, Progress, RequestStatus
from stoker.requests.session import Session
from stoker.requests.stream import Stream
from stoker.requests.submission import Submission
from stoker.transport import Pool, Reply
from stoker_wire.route import COST_MAX, DEFAULT_COST

if TYPE_CHECKING:
    from stoker.client import Serverless

TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One item of `Endpoint.map`: what `Endpoint.request` takes."""

    route: str
    payload: Any = None
    cost: float = DEFAULT_COST
    timeout: float | None = None
    """Seconds; None: the client's default."""
    content: bytes | None = None
    content_type: str | None = None
    files: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None


class EndpointKeys:
    """The endpoint's routing key: asked for once, and again when the engine refuses it (it was rotated)."""

    def __init__(self, client: Serverless, name: str, key: str) -> None:
        self._client = client
        self._name = name
        self._key = key
        self._renewing = asyncio.Lock()

    async def current(self) -> str:
        """The key."""
        return self._key

    async def renewed(self, refused: str) -> str | None:
        """Another key after the engine refused this one, or None."""
        async with self._renewing:  # a thousand refused requests ask once
            if self._key != refused:
                return self._key
            record = await self._client.lookup(self._name)
            if record is None or record.key in {"", refused}:
                return None
            self._key = record.key
            return self._key


class Endpoint:
    """A handle; `Serverless.get_endpoint` makes it."""

    def __init__(self, client: Serverless, *, name: str, endpoint_id: int, key: str) -> None:
        self._client = client
        self.name = name
        self.id = endpoint_id
        self._keys = EndpointKeys(client, name, key)

    def __repr__(self) -> str:
        return f"<Endpoint {self.id} {self.name}>"

    @property
    def workers_pool(self) -> Pool:
        """The connections to workers."""
        return self._client.workers_pool

    async def request(
        self,
        route: str,
        payload: Any = None,
        *,
        cost: float = DEFAULT_COST,
        timeout: float | None = None,  # noqa: ASYNC109 - a promise about the whole request, kept with asyncio.timeout
        content: bytes | None = None,
        content_type: str | None = None,
        files: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        retry: bool = True,
        idempotency_key: str | None = None,
        on_wait: OnWait | None = None,
        progress: Progress | None = None,
        pinned: Placed | None = None,
        session_id: str | None = None,
    ) -> Answer:
        """Send a request and wait for the whole answer.

        Args:
            route: the worker's handler, e.g. `/v1/completions`.
            payload: what goes to the model as JSON; or give `content` (bytes), or `files` and `data` (a form).
            cost: the work in it, in the endpoint's units (tokens, pixels, a constant).
            timeout: seconds for everything: waiting, retries, the model. None: the client's default.
            retry: False: one worker, one try.
            idempotency_key: sent with every attempt; a random one if None.
            on_wait: called with a `Wait` whenever the engine says why the request waits.
            progress, pinned, session_id: for this package's own use.

        Raises:
            StokerError: see `stoker.errors`.
        """
        exchange = self._exchange(
            route,
            payload,
            form={"content": content, "content_type": content_type, "files": files, "data": data},
            cost=cost,
            retry=retry,
            idempotency_key=idempotency_key,
            progress=progress or Progress(on_wait=on_wait),
            pinned=pinned,
            session_id=session_id,
        )
        return await self._answer(exchange, timeout)

    def stream(
        self,
        route: str,
        payload: Any = None,
        *,
        cost: float = DEFAULT_COST,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        files: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        retry: bool = True,
        idempotency_key: str | None = None,
        on_wait: OnWait | None = None,
        pinned: Placed | None = None,
        session_id: str | None = None,
    ) -> Stream:
        """A streamed answer: `async with endpoint.stream(…) as stream: async for event in stream: …`.

        `timeout` bounds the time to the first byte, `idle_timeout` (None: the same) the time between two.
        """
        exchange = self._exchange(
            route,
            payload,
            form={"content": content, "content_type": content_type, "files": files, "data": data},
            cost=cost,
            retry=retry,
            idempotency_key=idempotency_key,
            progress=Progress(on_wait=on_wait),
            pinned=pinned,
            session_id=session_id,
            accept="text/event-stream, application/x-ndjson;q=0.9, */*;q=0.5",
        )
        limit = self._limit(timeout)
        return Stream(
            exchange, timeout_seconds=limit, idle_seconds_max=limit if idle_timeout is None else idle_timeout
        )

    def session(
        self,
        *,
        cost: float = DEFAULT_COST,
        lifetime: float = 60.0,
        timeout: float | None = None,
        on_wait: OnWait | None = None,
        on_close_route: str | None = None,
        on_close_payload: Any = None,
    ) -> Session:
        """A worker to oneself: `async with endpoint.session(cost=…, lifetime=…) as session: …`.

        It occupies its worker with `cost`; it expires `lifetime` seconds after it was opened, and each request adds as much.
        When it closes, the worker posts `on_close_payload` to `on_close_route`, which must be one of its routes. What that
        weighs must be within `cost`.
        """
        if not 0 < lifetime < float("inf"):
            raise Invalid(f"lifetime is {lifetime} s; expected more than 0")
        wish = {
            "lifetime": lifetime,
            "on_close_route": None if on_close_route is None else check_path(on_close_route),
            "on_close_payload": on_close_payload,
        }
        return Session(self, cost=cost, wish=wish, timeout_seconds=timeout, on_wait=on_wait)

    def submit(self, route: str, payload: Any = None, **options: Any) -> Submission:
        """`request` in the background; leaving the client cancels what still runs."""
        progress = Progress(on_wait=options.pop("on_wait", None))
        return Submission(
            self._client.keep(self.request(route, payload, progress=progress, **options)), progress
        )

    async def map(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        concurrency: int = 64,
        ordered: bool = True,
        return_errors: bool = False,
    ) -> AsyncIterator[Any]:
        """The answers to many requests, at most `concurrency` at a time, in order or as they come.

        The first error ends it and cancels the rest, unless `return_errors`: then errors are given in the place of answers.
        """

        async def one(item: Request) -> Answer:
            return await self.request(
                item.route,
                item.payload,
                cost=item.cost,
                timeout=item.timeout,
                content=item.content,
                content_type=item.content_type,
                files=item.files,
                data=item.data,
            )

        results = map_bounded(
            requests, one, concurrency=concurrency, ordered=ordered, return_errors=return_errors
        )
        async with aclosing(results):
            async for result in results:
                yield result

    async def record(self) -> EndpointRecord:
        """Its parameters now."""
        return await self._client.endpoints.get(self.id)

    async def update(self, **parameters: Any) -> Self:
        """Change parameters, e.g. `max_workers=4`; what is not given stays."""
        await self._client.endpoints.update(self.id, **parameters)
        return self

    async def delete(self) -> None:
        """Delete it: every worker is destroyed."""
        await self._client.endpoints.delete(self.id)

    async def workers(self) -> list[WorkerRecord]:
        """Its workers."""
        return await self._client.endpoints.workers(self.id)

    async def logs(self, *, tail: int | None = None) -> Logs:
        """Its log, in four levels of detail."""
        return await self._client.endpoints.logs(self.id, tail=tail)

    async def status(self) -> dict[str, Any]:
        """Load against capacity, the queue, the fleet, and why requests wait."""
        return await self._client.endpoints.status(self.id)

    async def decisions(self, *, tail: int = 20) -> list[dict[str, Any]]:
        """The last decisions, each with its reason."""
        return await self._client.endpoints.decisions(self.id, tail=tail)

    async def costs(self) -> dict[str, Any]:
        """Dollars by worker state."""
        return await self._client.endpoints.costs(self.id)

    async def exchange_for_session(
        self,
        payload: Any,
        *,
        cost: float,
        timeout: float | None,  # noqa: ASYNC109 - as in request
        on_wait: OnWait | None,
    ) -> tuple[Answer, Placed]:
        """Open a session on some worker: its answer, and the worker."""
        exchange = self._exchange(
            "/session/create", payload, form={}, cost=cost, progress=Progress(on_wait=on_wait)
        )
        placed_at: list[Placed] = []

        async def finish(reply: Reply, placed: Placed) -> Answer:
            await reply.response.aread()
            placed_at.append(placed)
            return answer_of(reply.response, exchange, placed)

        answer = await exchange.run(finish, timeout_seconds=self._limit(timeout))
        return answer, placed_at[-1]

    async def _answer(self, exchange: RequestAttempts, timeout_seconds: float | None) -> Answer:
        async def finish(reply: Reply, placed: Placed) -> Answer:
            await reply.response.aread()
            return answer_of(reply.response, exchange, placed)

        answer = await exchange.run(finish, timeout_seconds=self._limit(timeout_seconds))
        exchange.progress.status = RequestStatus.COMPLETE
        return answer

    def _limit(self, timeout_seconds: float | None) -> float:
        limit = self._client.timeout_seconds if timeout_seconds is None else timeout_seconds
        if not limit > 0:
            raise Invalid(f"timeout is {limit} s; expected more than 0")
        return limit

    def _exchange(
        self,
        route: str,
        payload: Any,
        *,
        form: Mapping[str, Any],
        cost: float,
        progress: Progress,
        retry: bool = True,
        idempotency_key: str | None = None,
        pinned: Placed | None = None,
        session_id: str | None = None,
        accept: str = "*/*",
    ) -> RequestAttempts:
        if not 0 <= cost <= COST_MAX:
            raise Invalid(
                f"cost is {cost}; expected a number from 0 to {COST_MAX:g}, in the endpoint's units of work"
            )
        key = idempotency_key or uuid.uuid4().hex
        if not key.isascii() or not key.isprintable() or len(key) > 255:
            raise Invalid("the idempotency key must be printable ASCII of at most 255 characters")
        return RequestAttempts(
            engine=self._client.engine,
            workers=self._client.workers_pool,
            policy=self._client.retry if retry else NO_RETRY,
            keys=self._keys,
            endpoint=self.name,
            path=check_path(route),
            body=make_body(payload, **form),
            cost=cost,
            idempotency_key=key,
            progress=progress,
            accept=accept,
            pinned=pinned,
            session_id=session_id,
        )
