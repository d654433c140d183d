"""One event loop on one background thread, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for threads that wait for them; any number of threads may."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stoker-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work without waiting for it.

        Raises:
            RuntimeError: the client is closed.
        """
        if not self._thread.is_alive() or self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed; use it inside its `with`")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work. Ctrl-C while waiting cancels it."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator; leaving early closes it."""

        async def following() -> list[T]:
            # none at the end: an end of iteration cannot travel through a future as an exception
            try:
                return [await anext(source)]
            except StopAsyncIteration:
                return []

        try:
            while items := self.run(following()):
                yield from items
        finally:
            if isinstance(source, AsyncGenerator) and self._thread.is_alive():
                self.run(_close(source))

    def close(self) -> None:
        """Cancel what runs, and end the thread; closing twice does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


async def _close(source: AsyncGenerator[Any, None]) -> None:
    await source.aclose()
