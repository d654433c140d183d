"""One event loop on one background thread, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

_END_SECONDS_MAX = 10.0


class LoopThread:
    """Runs coroutines for threads that wait for them; any number of threads may."""

    def __init__(self, closing: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """`closing` is run at the end, on the loop; also when nobody closed this and it is dropped, or the program ends."""
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # The thread knows the loop alone: what it knew would live as long as the thread.
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="stoker-client", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _end, self._loop, self._thread, self._process, closing)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work without waiting for it.

        Raises:
            RuntimeError: the client is closed.
        """
        return self._begin(work)[0]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work. Ctrl-C while waiting cancels it, and is raised once it has ended.

        Raises:
            RuntimeError: the client is closed, or this is its own thread.
        """
        try:
            self._elsewhere()
        except RuntimeError:
            work.close()
            raise
        outcome, cancel = self._begin(work)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done() and self._thread.is_alive():
                # what the work holds, a stream for one, is the caller's again only when the work has let go of it
                self._loop.call_soon_threadsafe(cancel)
                wait([outcome])
            raise

    def wait(self, outcome: Future[T], seconds_max: float | None = None) -> T:
        """Wait for work that was started.

        Raises:
            RuntimeError: this is the client's own thread, and the work has not ended.
            TimeoutError: it has not ended in time.
        """
        if not outcome.done():
            self._elsewhere()
        return outcome.result(seconds_max)

    def _begin(self, work: Coroutine[Any, Any, T]) -> tuple[Future[T], Callable[[], None]]:
        """The future of work, done when its task is; and what cancels it, to be called on the loop."""
        if os.getpid() != self._process:
            work.close()
            raise RuntimeError(
                "this client was made before the process was forked, and its thread stayed in the parent; "
                "make a client in each process"
            )
        if not self._thread.is_alive() or self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed; use it inside its `with`")
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda ended: _tell(ended, outcome))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self._loop.call_soon_threadsafe(begin)
        return outcome, cancel

    def _elsewhere(self) -> None:
        """The loop's own thread cannot wait for the loop: nothing would run, for no caller, ever again.

        Raises:
            RuntimeError: this is that thread.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback (on_wait, or the source of a map) cannot wait for its own client, which waits for it; "
                "only note there what you need, and call the client from the thread that uses it"
            )

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
            if isinstance(source, AsyncGenerator) and self._works():
                if threading.current_thread() is self._thread:  # dropped, and collected while the loop ran
                    self.start(_close(source))
                else:
                    self.run(_close(source))

    def close(self) -> None:
        """Cancel what runs, and end the thread; closing twice does nothing.

        Raises:
            RuntimeError: this is that thread.
        """
        self._elsewhere()
        self._end()

    def _works(self) -> bool:
        """Whether the thread runs here. Threads that were alive when the interpreter began to end do not go on."""
        return os.getpid() == self._process and self._thread.is_alive() and not sys.is_finalizing()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: run the loop until it is stopped, then let go of what is left in it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _end(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    process: int,
    closing: Callable[[], Coroutine[Any, Any, None]] | None,
) -> None:
    """Close and stop the loop, and wait for the thread unless this is that thread."""
    if os.getpid() != process or not thread.is_alive() or sys.is_finalizing():
        return

    async def end() -> None:
        try:
            if closing is not None:
                await closing()
        finally:
            loop.stop()

    def begin() -> None:
        ending.append(loop.create_task(end()))

    ending: list[asyncio.Task[None]] = []
    loop.call_soon_threadsafe(begin)
    if threading.current_thread() is not thread:
        thread.join(_END_SECONDS_MAX)


async def _close(source: AsyncGenerator[Any, None]) -> None:
    await source.aclose()


def _tell(task: asyncio.Task[T], outcome: Future[T]) -> None:
    """What became of a task, for the thread that waits."""
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()  # only this wakes who waits in `wait`
    elif (fault := task.exception()) is not None:
        outcome.set_exception(fault)
    else:
        outcome.set_result(task.result())
