"""Many calls at once, with bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from stoker.errors import Invalid

T = TypeVar("T")
R = TypeVar("R")

BUFFERED_FACTOR = 4
"""With ordered results, a slow first call delays the results of later ones. At most this many times `concurrency` calls
are started or buffered."""


async def map_bounded(
    items: Iterable[T] | AsyncIterable[T],
    work: Callable[[T], Awaitable[R]],
    *,
    concurrency: int,
    ordered: bool,
    return_errors: bool,
) -> AsyncGenerator[R | Exception, None]:
    """`work` on every item, at most `concurrency` at a time; results in order, or as they complete.

    The first error ends the iteration and cancels the rest. With `return_errors`, errors are yielded as results.
    Closing the iterator cancels the running calls. Items are taken when needed, never all at once.

    Raises:
        Invalid: `concurrency` is below 1.
    """
    if concurrency < 1:
        raise Invalid(f"concurrency is {concurrency}; expected at least 1")
    running = asyncio.Semaphore(concurrency)
    buffered = asyncio.Semaphore(concurrency * BUFFERED_FACTOR if ordered else concurrency)
    results: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
    started: set[asyncio.Task[R]] = set()

    async def one(item: T) -> R:
        async with running:
            return await work(item)

    async def feed() -> None:
        try:
            source = _each(items)
            while True:
                await buffered.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                task = asyncio.ensure_future(one(item))
                started.add(task)
                if ordered:
                    results.put_nowait(task)
                else:
                    task.add_done_callback(results.put_nowait)
        finally:
            results.put_nowait(None)

    feeder = asyncio.ensure_future(feed())
    fed = False
    try:
        while started or not fed:
            task = await results.get()
            if task is None:
                fed = True
                await feeder  # raises an error of the source
                continue
            await asyncio.wait([task])
            started.discard(task)
            buffered.release()
            try:
                result: R | Exception = task.result()
            except Exception as fault:
                if not return_errors:
                    raise
                result = fault
            yield result
    finally:
        for unfinished in (feeder, *started):
            unfinished.cancel()
        await asyncio.gather(feeder, *started, return_exceptions=True)


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
