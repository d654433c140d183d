"""When the model can serve, and when it cannot any more: its log's lines, and a probe of its server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from stoker_pyworker.config import LogActionConfig
from stoker_pyworker.http.client import ask
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.model.log_file import LogFile

log = structlog.get_logger(room="readiness")

_LOADING_SECONDS = 0.1
_WATCHING_SECONDS = 5.0
_DOUBT_SECONDS = 0.5
_PROBE_SECONDS_MAX = 10.0
_PROBES_MAX = 2
_SLOW_PROBES_MAX = 3
"""A model server that computes in its event loop answers no probe meanwhile: slow is not broken, three times slow is."""
_SILENT_BUSY_SECONDS = 120.0
"""While requests run, a server without an answered probe or a byte of an answer counts as broken after this time.

Half of it: a healthy server that computes one long answer in its event loop is rebooted.
"""
_LOG_LINE_SECONDS = 60.0
"""A fault within so many seconds after an error line of the log is reported with that line."""
_CLOSING = (("connection", "close"),)
"""A server of one thread would wait for a second request on a connection that stays open."""


class LogWatch:
    """Reads the model's log for as long as the worker runs."""

    def __init__(
        self,
        path: Path,
        actions: LogActionConfig,
        *,
        loaded: Callable[[], None],
        failed: Callable[[str], None],
        unreadable: Callable[[str], None],
    ) -> None:
        self._path = path
        self._actions = actions
        self._loaded = loaded
        self._failed = failed
        self._unreadable = unreadable

    async def run(self) -> None:
        """Tell what each line means; `failed` is told the line itself."""
        async for line in LogFile(self._path, told=self._unreadable).lines():
            if any(text in line for text in self._actions.on_error):
                self._failed(line[:300])
            elif any(text in line for text in self._actions.on_load):
                self._loaded()
            elif any(text in line for text in self._actions.on_info):
                log.info("model_log", line=line[:1000])


class Probe:
    """Asks the model server whether it is well: its health path, or else whether it takes connections at all.

    A server that serves one request at a time may answer a probe late, or cut a running stream for it. So nothing is
    asked while such a request runs, nor while bytes of any answer flow: these prove more than a probe.
    """

    def __init__(
        self,
        pool: Pool,
        path: str,
        *,
        serves_serial: Callable[[], bool] = lambda: False,
        is_serial: bool = False,
        attempt: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        """`serves_serial` says whether a request of a one-at-a-time route runs now; `is_serial`: all routes are such.

        `attempt` sends one request of the benchmark and returns what is wrong, or None. It settles what the log says
        where there is no health path.
        """
        # Behind requests that hold every connection, a probe would find a healthy model server silent.
        self._pool = pool.apart(_PROBES_MAX)
        self._requests = pool
        self._path = path
        self._serves_serial = serves_serial
        self._is_serial = is_serial
        self._attempt = attempt
        self._doubt = asyncio.Event()
        self._doubted_at = float("-inf")
        self._log_line = ""
        self._log_line_at = float("-inf")
        self._log_pending = False
        """No verdict has been reached since the line came."""
        self._slow = 0
        self._silent_since = float("inf")
        """Since when probes go unanswered."""

    def doubt(self) -> None:
        """A request failed: look now."""
        self._doubted_at = time.monotonic()
        self._doubt.set()

    def doubt_log(self, line: str) -> None:
        """The log of a worker that serves has a line that means an error: only a failing probe confirms it."""
        self._log_line, self._log_line_at, self._log_pending = line, time.monotonic(), True
        self.doubt()

    async def until_well(self) -> None:
        """Wait until the model server is well."""
        while await self.fault() is not None:  # noqa: ASYNC110 - the event is another process's
            await asyncio.sleep(_LOADING_SECONDS)

    async def watch(self, well: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Tell of every look, for as long as the worker runs."""
        while True:
            self._doubt.clear()
            looked_at = time.monotonic()
            verdict = await self._look()
            if verdict == "":
                well()
                if self._doubted_at <= looked_at:
                    self._dismiss_log()
            elif verdict is not None:
                failed(self._with_log(verdict))
            settled = verdict == "" or (verdict is None and self._doubted_at == float("-inf"))
            if verdict is not None and self._doubted_at <= looked_at:
                self._doubted_at = float("-inf")
            try:
                async with asyncio.timeout(_WATCHING_SECONDS if settled else _DOUBT_SECONDS):
                    await self._doubt.wait()
            except TimeoutError:
                continue
            # Several requests may fail in one moment: one look is enough for all.
            await asyncio.sleep(_LOADING_SECONDS)

    async def _look(self) -> str | None:
        """What is wrong, an empty string if the server is well, None if nothing can be said now."""
        began = time.monotonic()
        if self._progressed(max(began - _WATCHING_SECONDS, self._doubted_at)):
            self._answered()
            return ""
        if self._serves_serial():
            self._answered()
            return None
        try:
            fault = await self._settle()
        except TimeoutError:
            return self._unanswered(began)
        self._answered()
        return fault or ""

    def _answered(self) -> None:
        """Count unanswered probes from the start again."""
        self._slow, self._silent_since = 0, float("inf")

    def _unanswered(self, began: float) -> str | None:
        """The verdict after a probe without an answer: a server that computes in its event loop answers none meanwhile."""
        if self._progressed(began) or self._serves_serial():
            self._answered()
            return None
        self._slow += 1
        self._silent_since = min(self._silent_since, began)
        silent = time.monotonic() - self._silent_since
        if self._slow < _SLOW_PROBES_MAX or (self._requests.running and silent < _SILENT_BUSY_SECONDS):
            return None
        return f"the model server answered no health probe for {silent:.0f} s"

    def _progressed(self, since: float) -> bool:
        """Whether a running request has had bytes of its answer after that."""
        return self._requests.running > 0 and self._requests.heard_at > since

    async def _settle(self) -> str | None:
        if not self._path and self._log_pending and self._attempt is not None:
            return await self._attempt()
        return await self.fault()

    def _with_log(self, fault: str) -> str:
        """The fault with what the log said shortly before."""
        if self._log_line and time.monotonic() - self._log_line_at <= _LOG_LINE_SECONDS:
            return f"{fault}; the model's log says: {self._log_line}"
        return fault

    def _dismiss_log(self) -> None:
        """The server is well although its log said otherwise. The line is kept for a fault that follows soon."""
        if self._log_pending:
            log.warning("log_error_not_confirmed", line=self._log_line)
            self._log_pending = False

    async def fault(self) -> str | None:
        """What is wrong with the model server, or None.

        Raises:
            TimeoutError: it took the connection and gave no answer.
        """
        if self._is_serial:
            # A server of one thread may be waiting for the next request on the connection that served the last one.
            self._requests.close_idle()
        if not self._path:
            return await self._connects()
        try:
            answer = await ask(
                self._pool, "GET", self._path, seconds_max=_PROBE_SECONDS_MAX, headers=_CLOSING
            )
        except OriginFault as fault:
            return str(fault)
        if answer.status == 200:
            return None
        return f"the model server answers {self._path} with status {answer.status}"

    async def _connects(self) -> str | None:
        try:
            _, writer = await asyncio.open_connection(self._pool.host, self._pool.port)
        except OSError as fault:
            return f"{self._pool.host}:{self._pool.port} takes no connection: {fault}"
        writer.close()
        return None
