"""Servers that run beside a test on an event loop in a thread, and their logs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from aiohttp import web
from structlog.testing import capture_logs

from webserver.connections import ConnectionLimits, listen

T = TypeVar("T")

FAULTS = {"handler_failed", "request_failed", "task_failed", "query_failed", "temporal_refused"}
"""Log events that mean a fault in our code."""


class Running:
    """A loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(self._fault)
        self.thread = threading.Thread(target=self.loop.run_forever)

    def _fault(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    def call(self, coroutine: Any, seconds: float = 90.0) -> Any:
        """Its result, from the loop's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """The application behind the limits of the real servers; its base address."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    server, limiter = await listen(runner, "127.0.0.1", 0, limits=ConnectionLimits())
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    limiter.close()
    await runner.cleanup()


@contextlib.contextmanager
def live(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[tuple[T, Running]]:
    """Runs the context manager on its own loop; fails at the end if an error was logged."""
    running = Running()
    running.thread.start()
    opened = make()
    with capture_logs() as logged:
        try:
            entered = running.call(opened.__aenter__())
            try:
                yield entered, running
            finally:
                running.call(opened.__aexit__(None, None, None))
        finally:
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join()
            running.loop.close()
    found = [line for line in logged if line["event"] in FAULTS]
    assert not found, found
    assert not any("Traceback" in str(line) for line in logged)
    assert not running.faults, running.faults
