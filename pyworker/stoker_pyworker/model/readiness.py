"""Detects from its log and by probes whether the model server is healthy."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from stoker_pyworker.config import LogActionConfig
from stoker_pyworker.model.health import Phase
from stoker_pyworker.model.log_file import LogFile
from stoker_pyworker.model.server.failure_causes import SEARCHED_CHARS
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

log = structlog.get_logger(component="readiness")

_LOADING_POLL_SECONDS = 0.1
_POLL_SECONDS = 5.0
_RECHECK_SECONDS = 0.5
_PROBE_SECONDS_MAX = 10.0
_PROBES_MAX = 2
_UNANSWERED_PROBES_MAX = 3
"""A server that computes in its event loop does not answer probes meanwhile, so one missed probe is not an error."""
_UNANSWERED_BUSY_SECONDS = 120.0
"""While requests run, a server is broken after this time without a probe answer or a byte of a response.

Half of it: a healthy server that computes one long response in its event loop is rebooted.
"""
_LOG_LINE_SECONDS = 60.0
"""An error within this time after an error line of the log is reported with that line."""
_CONNECTION_CLOSE = (("connection", "close"),)
"""A single-threaded server would wait for the next request of a connection that stays open."""

_DOWNLOADS = re.compile(
    r"\bdownloading\b|\bto download\b|pull: pulling|check and download process|\d%\|.*\d[kmg]?b/s\b",
    re.IGNORECASE,
)
"""Lines of Hugging Face's client, llama.cpp, Ollama and TGI while weights are downloaded."""
_LOOKS_UP = re.compile(r"fetching \d+ files", re.IGNORECASE)
"""Hugging Face's client begins a download with it. vLLM prints it again after the load, for files that it has."""
_LOADS = re.compile(
    r"time spent downloading weights|successfully downloaded weights|pull: success|starting to load model"
    r"|loading (safetensors|pt|model|weights)|load weight begin|llama_model_loader|load_tensors|starting shard",
    re.IGNORECASE,
)
"""Lines that follow a download, or tell that none is needed."""


class LogWatch:
    """Follows the model's log and calls a function for each meaningful line."""

    def __init__(
        self,
        path: Path,
        actions: LogActionConfig,
        *,
        loaded: Callable[[], None],
        failed: Callable[[str], None],
        read_error: Callable[[str], None],
        phase: Callable[[Phase], None] = lambda _: None,
    ) -> None:
        """`phase` receives the phase of the load that a line of the log shows."""
        self._phase = phase
        self._path = path
        self._actions = actions
        self._loaded = loaded
        self._failed = failed
        self._read_error = read_error
        self._loads = False

    async def run(self) -> None:
        """Evaluate each line. Runs until cancelled."""
        async for line in LogFile(self._path, on_read_error=self._read_error).lines():
            self.evaluate(line)

    def evaluate(self, line: str) -> None:
        """Act on one line; `failed` receives it."""
        beginning = line[:SEARCHED_CHARS]
        if _LOADS.search(beginning) is not None:
            self._enter(Phase.LOAD)
        elif _DOWNLOADS.search(beginning) is not None or (not self._loads and _LOOKS_UP.search(beginning)):
            self._enter(Phase.DOWNLOAD)
        if any(text in line for text in self._actions.on_error):
            self._failed(line[:300])
        elif any(text in line for text in self._actions.on_load):
            self._loaded()
        elif any(text in line for text in self._actions.on_info):
            log.info("model_log", line=line[:1000])

    def _enter(self, phase: Phase) -> None:
        self._loads = phase is Phase.LOAD
        self._phase(phase)


class Probe:
    """Checks the model server: its health path, or without one, whether it accepts connections.

    A server that runs one request at a time may answer a probe late, or cut a running stream for it. So no probe is sent
    while such a request runs, nor while bytes of any response arrive, which prove more than a probe.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        path: str,
        *,
        serves_serial: Callable[[], bool] = lambda: False,
        is_serial: bool = False,
        send_request: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        """`serves_serial` tells whether a request of a non-parallel route runs now; `is_serial`: no route is parallel.

        `send_request` sends one benchmark request and returns its error, or None. Without a health path it verifies an
        error line of the log.
        """
        # Requests may use every connection of their pool; probes must not wait for them.
        self._pool = pool.separate_pool(_PROBES_MAX)
        self._requests = pool
        self._path = path
        self._serves_serial = serves_serial
        self._is_serial = is_serial
        self._send_request = send_request
        self._recheck = asyncio.Event()
        self._recheck_at = float("-inf")
        self._log_line = ""
        self._log_line_at = float("-inf")
        self._log_pending = False
        """No probe has confirmed or refuted the line yet."""
        self._unanswered_count = 0
        self._unanswered_since = float("inf")
        """Monotonic clock; infinite while probes are answered."""

    def recheck(self) -> None:
        """Probe now, because a request failed."""
        self._recheck_at = time.monotonic()
        self._recheck.set()

    def recheck_after(self, line: str) -> None:
        """Probe now, because of an error line in the log. Only a failing probe makes it an error."""
        self._log_line, self._log_line_at, self._log_pending = line, time.monotonic(), True
        self.recheck()

    async def wait_until_healthy(self) -> None:
        """Wait until the model server is healthy."""
        while await self.check() is not None:  # noqa: ASYNC110 - another process changes the state
            await asyncio.sleep(_LOADING_POLL_SECONDS)

    async def watch(self, healthy: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Report the result of every check. Runs until cancelled."""
        while True:
            self._recheck.clear()
            checked_at = time.monotonic()
            result = await self._evaluate()
            if result == "":
                healthy()
                if self._recheck_at <= checked_at:
                    self._dismiss_log_line()
            elif result is not None:
                failed(self._with_log_line(result))
            settled = result == "" or (result is None and self._recheck_at == float("-inf"))
            if result is not None and self._recheck_at <= checked_at:
                self._recheck_at = float("-inf")
            try:
                async with asyncio.timeout(_POLL_SECONDS if settled else _RECHECK_SECONDS):
                    await self._recheck.wait()
            except TimeoutError:
                continue
            # One check is enough for several requests that fail together.
            await asyncio.sleep(_LOADING_POLL_SECONDS)

    async def _evaluate(self) -> str | None:
        """The error, an empty string if the server is healthy, or None if unknown."""
        started = time.monotonic()
        if self._progressed(max(started - _POLL_SECONDS, self._recheck_at)):
            self._answered()
            return ""
        if self._serves_serial():
            self._answered()
            return None
        try:
            fault = await self._confirm()
        except TimeoutError:
            return self._not_answered(started)
        self._answered()
        return fault or ""

    def _answered(self) -> None:
        """Reset the count of unanswered probes."""
        self._unanswered_count, self._unanswered_since = 0, float("inf")

    def _not_answered(self, started: float) -> str | None:
        """The result after a probe without an answer. The server may be computing in its event loop."""
        if self._progressed(started) or self._serves_serial():
            self._answered()
            return None
        self._unanswered_count += 1
        self._unanswered_since = min(self._unanswered_since, started)
        unanswered = time.monotonic() - self._unanswered_since
        if self._unanswered_count < _UNANSWERED_PROBES_MAX or (
            self._requests.active_count and unanswered < _UNANSWERED_BUSY_SECONDS
        ):
            return None
        return f"the model server answered no health probe for {unanswered:.0f} s"

    def _progressed(self, since: float) -> bool:
        """Whether a running request has received bytes of its response after that time."""
        return self._requests.active_count > 0 and self._requests.last_received_at > since

    async def _confirm(self) -> str | None:
        if not self._path and self._log_pending and self._send_request is not None:
            return await self._send_request()
        return await self.check()

    def _with_log_line(self, fault: str) -> str:
        """The error with a recent error line of the log."""
        if self._log_line and time.monotonic() - self._log_line_at <= _LOG_LINE_SECONDS:
            return f"{fault}; the model's log says: {self._log_line}"
        return fault

    def _dismiss_log_line(self) -> None:
        """The server is healthy despite the error line. The line is kept for an error that follows soon."""
        if self._log_pending:
            log.warning("log_error_not_confirmed", line=self._log_line)
            self._log_pending = False

    async def check(self) -> str | None:
        """The error of the model server, or None.

        Raises:
            TimeoutError: it accepted the connection and did not answer.
        """
        if self._is_serial:
            # A single-threaded server may be waiting for the next request on the connection of the last one.
            self._requests.close_idle()
        if not self._path:
            return await self._connect()
        try:
            response = await fetch(
                self._pool, "GET", self._path, seconds_max=_PROBE_SECONDS_MAX, headers=_CONNECTION_CLOSE
            )
        except UpstreamError as fault:
            return str(fault)
        if response.status == 200:
            return None
        return f"the model server answers {self._path} with status {response.status}"

    async def _connect(self) -> str | None:
        try:
            _, writer = await asyncio.open_connection(self._pool.host, self._pool.port)
        except OSError as fault:
            return f"{self._pool.host}:{self._pool.port} takes no connection: {fault}"
        writer.close()
        return None
