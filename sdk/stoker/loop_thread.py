"""One event loop on one background thread, for callers without an event loop."""

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

_JOIN_SECONDS_MAX = 10.0


class LoopThread:
    """Runs coroutines for other threads, which wait for the results. Any number of threads may use it."""

    def __init__(self, closing: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Start the thread. `closing` runs on the loop at the end: at `close`, at garbage collection, or at exit."""
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # The thread references the loop only: anything else that it references lives as long as the thread.
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="stoker-client", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _end, self._loop, self._thread, self._process, closing)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work without waiting for it.

        Raises:
            RuntimeError: the client is closed.
        """
        return self._schedule(work)[0]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work and wait for its result. Ctrl-C cancels the work and is raised once the work has ended.

        Raises:
            RuntimeError: the client is closed, or the caller is the loop's own thread.
        """
        try:
            self._refuse_own_thread()
        except RuntimeError:
            work.close()
            raise
        outcome, cancel = self._schedule(work)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done() and self._thread.is_alive():
                # wait until the work has released its objects, for example a stream, before the caller uses them
                self._loop.call_soon_threadsafe(cancel)
                wait([outcome])
            raise

    def wait(self, outcome: Future[T], seconds_max: float | None = None) -> T:
        """Wait for work that was started.

        Raises:
            RuntimeError: the caller is the loop's own thread, and the work has not ended.
            TimeoutError: the work has not ended in time.
        """
        if not outcome.done():
            self._refuse_own_thread()
        return outcome.result(seconds_max)

    def _schedule(self, work: Coroutine[Any, Any, T]) -> tuple[Future[T], Callable[[], None]]:
        """The work's future, and a function that cancels the work when it is called on the loop."""
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

        def create_task() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda ended: _copy_outcome(ended, outcome))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self._loop.call_soon_threadsafe(create_task)
        return outcome, cancel

    def _refuse_own_thread(self) -> None:
        """Refuse to wait for the loop on the loop's own thread, which would block all callers.

        Raises:
            RuntimeError: the caller is that thread.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback (on_wait, or the source of a map) cannot wait for its own client, which waits for the "
                "callback; store the data there, and call the client from the thread that uses it"
            )

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator; leaving the loop early closes it."""

        async def next_item() -> list[T]:
            # an empty list marks the end, because a future cannot carry StopAsyncIteration
            try:
                return [await anext(source)]
            except StopAsyncIteration:
                return []

        try:
            while items := self.run(next_item()):
                yield from items
        finally:
            if isinstance(source, AsyncGenerator) and self._thread_runs():
                if threading.current_thread() is self._thread:  # garbage collected on the loop's thread
                    self.start(_close(source))
                else:
                    self.run(_close(source))

    def close(self) -> None:
        """Cancel running work and end the thread; closing twice does nothing.

        Raises:
            RuntimeError: the caller is that thread.
        """
        self._refuse_own_thread()
        self._end()

    def _thread_runs(self) -> bool:
        """Whether the thread runs in this process. Daemon threads stop when the interpreter finalizes."""
        return os.getpid() == self._process and self._thread.is_alive() and not sys.is_finalizing()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """The thread's main function: run the loop until it is stopped, then cancel its tasks."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        unfinished = asyncio.all_tasks(loop)
        for task in unfinished:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*unfinished, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _end(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    process: int,
    closing: Callable[[], Coroutine[Any, Any, None]] | None,
) -> None:
    """Run `closing`, stop the loop, and wait for the thread unless the caller is that thread."""
    if os.getpid() != process or not thread.is_alive() or sys.is_finalizing():
        return

    async def end() -> None:
        try:
            if closing is not None:
                await closing()
        finally:
            loop.stop()

    def create_task() -> None:
        ending.append(loop.create_task(end()))

    ending: list[asyncio.Task[None]] = []
    loop.call_soon_threadsafe(create_task)
    if threading.current_thread() is not thread:
        thread.join(_JOIN_SECONDS_MAX)


async def _close(source: AsyncGenerator[Any, None]) -> None:
    await source.aclose()


def _copy_outcome(task: asyncio.Task[T], outcome: Future[T]) -> None:
    """Copy a task's outcome to the future of the waiting thread."""
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()  # wakes threads in `concurrent.futures.wait`
    elif (fault := task.exception()) is not None:
        outcome.set_exception(fault)
    else:
        outcome.set_result(task.result())
