"""Many requests at once, with bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from stoker.errors import Invalid

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""In order, a slow first request holds back the answers of the others: up to this many times `concurrency` wait in
memory, then nothing new is started."""


async def map_bounded(
    items: Iterable[T] | AsyncIterable[T],
    work: Callable[[T], Awaitable[R]],
    *,
    concurrency: int,
    ordered: bool,
    return_errors: bool,
) -> AsyncGenerator[R | Exception, None]:
    """`work` on every item, at most `concurrency` at a time; results in order, or as they come.

    The first error ends it and cancels the rest, unless `return_errors`: then errors stand in the place of results.
    Closing the iterator cancels what runs. Items are taken as they are needed, never all at once.
    """
    if concurrency < 1:
        raise Invalid(f"concurrency is {concurrency}; expected at least 1")
    turn = asyncio.Semaphore(concurrency)
    room = asyncio.Semaphore(concurrency * AHEAD if ordered else concurrency)
    results: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
    started: set[asyncio.Task[R]] = set()

    async def one(item: T) -> R:
        async with turn:
            return await work(item)

    async def feed() -> None:
        try:
            source = _each(items)
            while True:
                await room.acquire()
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
                await feeder  # an error of the source is the caller's
                continue
            await asyncio.wait([task])
            started.discard(task)
            room.release()
            try:
                result: R | Exception = task.result()
            except Exception as fault:
                if not return_errors:
                    raise
                result = fault
            yield result
    finally:
        for left in (feeder, *started):
            left.cancel()
        await asyncio.gather(feeder, *started, return_exceptions=True)


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
