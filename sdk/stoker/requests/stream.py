"""A stream: events, or raw bytes, as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from stoker.errors import RequestTimedOut, WorkerFailed
from stoker.requests.answer import media_type, timing_of, worker_id_of
from stoker.requests.attempts import Placed, RequestAttempts
from stoker.requests.events import Event, parser_for
from stoker.requests.progress import RequestStatus
from stoker.requests.timing import Timing
from stoker.transport import Reply

END_SECONDS_MAX = 0.05
"""For the end of the body after `[DONE]`."""

Chunk = bytes  # by this name, because a stream has a method called `bytes`


class Stream:
    """A model's answer while it is being made. Use it in `async with`; leaving it stops the model's work.

    Iterate over it for events; `[DONE]` ends it. `bytes()` gives the body as it comes. Before the first byte the request
    is retried like any other; after it, never: what was already given cannot be taken back.
    """

    def __init__(
        self, exchange: RequestAttempts, *, timeout_seconds: float | None, idle_seconds_max: float | None
    ) -> None:
        self._exchange = exchange
        self._timeout_seconds = timeout_seconds
        self._idle_seconds_max = idle_seconds_max
        self._reply: Reply | None = None
        self._placed: Placed | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._first = b""
        self._got = 0
        self._first_byte: Timing | None = None

    async def __aenter__(self) -> Self:
        reply, placed = await self._exchange.run(self._begin, timeout_seconds=self._timeout_seconds)
        self._reply, self._placed = reply, placed
        self._first_byte = timing_of(reply.response, self._exchange)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. The worker sees the connection close, and the model stops."""
        if self._reply is not None:
            if not self._exchange.progress.status.finished:
                self._exchange.progress.status = RequestStatus.CANCELLED
            await self._reply.aclose()

    async def _begin(self, reply: Reply, placed: Placed) -> tuple[Reply, Placed]:
        """Read up to the first byte: until then another worker could still take over."""
        self._chunks = reply.response.aiter_bytes()
        self._first = await anext(self._chunks, b"")
        return reply.keep(), placed

    @property
    def _response(self) -> httpx.Response:
        if self._reply is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        return self._reply.response

    @property
    def status(self) -> int:
        """The worker's HTTP status."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The worker's HTTP headers."""
        return self._response.headers

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return media_type(self.headers)

    @property
    def timing(self) -> Timing:
        """Where the time went: until the first byte while it runs, in total once it has ended."""
        if self._exchange.progress.status.finished or self._first_byte is None:
            return timing_of(self._response, self._exchange)
        return self._first_byte

    @property
    def first_byte(self) -> Timing:
        """Where the time until the first byte went."""
        return self._first_byte or timing_of(self._response, self._exchange)

    @property
    def worker_id(self) -> int:
        """The marketplace's instance id; 0 if nobody said it."""
        return worker_id_of(self._response, self._place)

    @property
    def worker_url(self) -> str:
        """Who makes the stream."""
        return self._place.route.url

    @property
    def attempts(self) -> int:
        """Workers tried."""
        return self._exchange.progress.attempts

    @property
    def request_idx(self) -> int:
        """The engine's number of the request."""
        return self._exchange.progress.request_idx

    @property
    def _place(self) -> Placed:
        if self._placed is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        return self._placed

    async def bytes(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            WorkerFailed: the worker or the connection broke in the middle.
            RequestTimedOut: nothing came for as long as `idle_timeout`.
        """
        progress = self._exchange.progress
        chunk = self._first
        while chunk:
            self._first = b""
            self._got += len(chunk)
            yield chunk
            chunk = await self._next()
        progress.status = RequestStatus.COMPLETE

    async def __aiter__(self) -> AsyncIterator[Event]:
        if self._chunks is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        parser = parser_for(self.content_type, self._first)
        async for chunk in self.bytes():
            for event in parser.feed(chunk):
                if event.done:
                    self._exchange.progress.status = RequestStatus.COMPLETE
                    await self._read_end()
                    return
                yield event
        for event in parser.close():
            if not event.done:
                yield event

    async def _read_end(self) -> None:
        """Only an answer that was read to its end gives its connection back; after `[DONE]` the end comes at once, or the
        connection is not worth the wait."""
        if self._chunks is None:
            return
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(END_SECONDS_MAX):
                while await anext(self._chunks, b""):
                    pass

    async def _next(self) -> Chunk:
        if self._chunks is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        progress = self._exchange.progress
        try:
            async with asyncio.timeout(self._idle_seconds_max):
                return await anext(self._chunks, b"")
        except (httpx.TransportError, httpx.DecodingError) as broken:
            progress.status = RequestStatus.ERRORED
            raise WorkerFailed(
                f"the worker {self.worker_url} broke the stream after {self._got} bytes "
                f"({str(broken) or type(broken).__name__}); what came is incomplete, send the request again",
                worker_url=self.worker_url,
                attempts=self.attempts,
            ) from None
        except TimeoutError:
            progress.status = RequestStatus.ERRORED
            raise RequestTimedOut(
                f"the worker {self.worker_url} sent nothing for {self._idle_seconds_max:g} s after {self._got} bytes; "
                "give a longer idle_timeout=… if the model pauses that long",
                reason="worker",
                waited_s=self._exchange.clock.total_s,
            ) from None
