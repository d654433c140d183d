"""A streamed answer: events, or raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from stoker.errors import RequestTimedOut, WorkerFailed
from stoker.requests.answer import media_type, timing_of, worker_id_of
from stoker.requests.attempts import Placement, RequestAttempts
from stoker.requests.events import Event, parser_for
from stoker.requests.progress import RequestStatus
from stoker.requests.timing import Timing
from stoker.transport import Reply

END_SECONDS_MAX = 0.05
"""For the end of the body after `[DONE]`."""

Chunk = bytes  # an alias, because a stream has a method called `bytes`


class Stream:
    """A model's answer, chunk by chunk. Use it in `async with`; leaving the block stops the model.

    Iterate over it for events; `[DONE]` ends it. `bytes()` yields the body unchanged. The request is retried before the
    first byte and never after it, because yielded data cannot be taken back.
    """

    def __init__(
        self, attempts: RequestAttempts, *, timeout_seconds: float | None, idle_seconds_max: float | None
    ) -> None:
        self._attempts = attempts
        self._timeout_seconds = timeout_seconds
        self._idle_seconds_max = idle_seconds_max
        self._reply: Reply | None = None
        self._placement: Placement | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._first_chunk = b""
        self._bytes_read = 0
        self._first_byte: Timing | None = None

    async def __aenter__(self) -> Self:
        reply, placement = await self._attempts.run(self._begin, timeout_seconds=self._timeout_seconds)
        self._reply, self._placement = reply, placement
        self._first_byte = timing_of(reply.response, self._attempts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. The worker sees the connection close and stops the model."""
        if self._reply is not None:
            if not self._attempts.progress.status.finished:
                self._attempts.progress.status = RequestStatus.CANCELLED
            self._attempts.end_trace()
            await self._reply.aclose()

    async def _begin(self, reply: Reply, placement: Placement) -> tuple[Reply, Placement]:
        """Read the first chunk: until then another worker can take over."""
        self._chunks = reply.response.aiter_bytes()
        self._first_chunk = await anext(self._chunks, b"")
        return reply.detach(), placement

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
        """The media type without parameters, in lower case."""
        return media_type(self.headers)

    @property
    def timing(self) -> Timing:
        """The timing until the first byte while the stream runs; in total once it has ended."""
        if self._attempts.progress.status.finished or self._first_byte is None:
            return timing_of(self._response, self._attempts)
        return self._first_byte

    @property
    def first_byte(self) -> Timing:
        """The timing until the first byte."""
        return self._first_byte or timing_of(self._response, self._attempts)

    @property
    def worker_id(self) -> int:
        """The marketplace's instance id; 0 if neither worker nor engine reported it."""
        return worker_id_of(self._response, self._open_placement)

    @property
    def worker_url(self) -> str:
        """The worker that sends the stream."""
        return self._open_placement.route.url

    @property
    def attempts(self) -> int:
        """Workers tried."""
        return self._attempts.progress.attempts

    @property
    def request_idx(self) -> int:
        """The engine's number of the request."""
        return self._attempts.progress.request_idx

    @property
    def _open_placement(self) -> Placement:
        if self._placement is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        return self._placement

    async def bytes(self) -> AsyncIterator[bytes]:
        """The body, unchanged, chunk by chunk.

        Raises:
            WorkerFailed: the worker or the connection broke in the middle.
            RequestTimedOut: no chunk came within `idle_timeout`.
        """
        chunk = self._first_chunk
        while chunk:
            self._first_chunk = b""
            self._bytes_read += len(chunk)
            yield chunk
            chunk = await self._next_chunk()
        self._attempts.progress.status = RequestStatus.COMPLETE

    async def __aiter__(self) -> AsyncIterator[Event]:
        if self._chunks is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        parser = parser_for(self.content_type, self._first_chunk)
        async for chunk in self.bytes():
            for event in parser.feed(chunk):
                if event.done:
                    self._attempts.progress.status = RequestStatus.COMPLETE
                    await self._read_end()
                    return
                yield event
        for event in parser.close():
            if not event.done:
                yield event

    async def _read_end(self) -> None:
        """Read to the end of the body after `[DONE]`: only then can the connection be reused.

        The wait is short; a new connection costs less than a long one.
        """
        if self._chunks is None:
            return
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(END_SECONDS_MAX):
                while await anext(self._chunks, b""):
                    pass

    async def _next_chunk(self) -> Chunk:
        if self._chunks is None:
            raise RuntimeError("the stream is not open; use it inside `async with`")
        progress = self._attempts.progress
        try:
            async with asyncio.timeout(self._idle_seconds_max):
                return await anext(self._chunks, b"")
        except (httpx.TransportError, httpx.DecodingError) as broken:
            progress.status = RequestStatus.ERRORED
            raise WorkerFailed(
                f"the worker {self.worker_url} broke the stream after {self._bytes_read} bytes "
                f"({str(broken) or type(broken).__name__}); the answer is incomplete, send the request again",
                worker_url=self.worker_url,
                attempts=self.attempts,
            ) from None
        except TimeoutError:
            progress.status = RequestStatus.ERRORED
            raise RequestTimedOut(
                f"the worker {self.worker_url} sent nothing for {self._idle_seconds_max:g} s "
                f"after {self._bytes_read} bytes; give a longer idle_timeout=… if the model pauses that long",
                reason="worker",
                waited_s=self._attempts.timer.total_s,
            ) from None
