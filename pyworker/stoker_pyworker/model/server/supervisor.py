"""Runs the model server: starts it, reads its output, explains its exit, starts it again, stops it."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from stoker_pyworker.model.server import process_group
from stoker_pyworker.model.server.failure_causes import CauseFinder
from stoker_pyworker.model.server.output_log import OutputLog
from stoker_pyworker.server_config import ModelServerConfig

log = structlog.get_logger(component="model_server")

_PAUSE_SECONDS = 1.0
_PAUSE_SECONDS_MAX = 60.0
_STABLE_SECONDS = 300.0
"""A run that was ready for so long ends the count of exits."""
_EXITS_MAX = 5
"""Exits in a row after which the server is not started again: a crash loop."""
_OUTPUT_SECONDS = 0.3
"""Time to read the last output of an exited process; its descendants may keep the pipe open."""
_PORT_SECONDS = 10.0
_READ_BYTES = 64 * 1024
_LOADING_LINES_MAX = 200
"""Lines of a run that are copied to the worker's log until the server is ready."""
_OUT_OF_MEMORY = (
    "the machine's memory (RAM) is full, and the kernel killed the model server: choose a smaller model or context,"
    " or an offer with more memory"
)
_CREDENTIALS = ("MASTER_TOKEN", "REPORT_ADDR", "CONTAINER_API_KEY")
"""Variables of the worker that its model server does not need."""


@dataclass(frozen=True, slots=True)
class ServerFailure:
    """Why a run of the model server ended."""

    sentence: str
    """For people: the cause, and its remedy where it is known."""
    final: bool = False
    """A restart on this machine cannot help."""
    everywhere: bool = False
    """No other machine can help either."""


class ModelSupervisor:
    """Keeps one model server running until `stop`."""

    def __init__(
        self,
        config: ModelServerConfig,
        *,
        log_file: Path,
        directory: Path,
        on_line: Callable[[str], None],
        on_failed: Callable[[ServerFailure], None],
        on_downloaded: Callable[[float], None],
        accepts_connections: Callable[[], Awaitable[bool]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`on_line` receives each line of output, `on_failed` the reason when the server has exited.
        `on_downloaded` receives the seconds that the download of the weights took.

        `accepts_connections` tells whether a process listens on the server's port.
        """
        self._config = config
        self._directory = directory
        self._on_line = on_line
        self._on_failed = on_failed
        self._on_downloaded = on_downloaded
        self._downloaded = re.compile(config.downloaded_pattern) if config.downloaded_pattern else None
        self._accepts_connections = accepts_connections
        self._environment = os.environ if environment is None else environment
        self._mark = process_group.own_mark()
        self._output = OutputLog(log_file, bytes_max=config.log_bytes_max)
        self._causes = CauseFinder(config.causes)
        self._process: asyncio.subprocess.Process | None = None
        self._reader = -1
        self._started_at = 0.0
        self._ready = asyncio.Event()
        self._ready_at = 0.0
        self._stopping = False
        self._lines_copied = 0
        self._lines_skipped = 0
        """Lines since the last one that was copied."""
        self._oom_kills = 0
        self.exits = 0
        """Exits in a row without a stable run between them."""
        self.gave_up = False
        """The server is not started again."""

    def __repr__(self) -> str:
        pid = "no process" if self._process is None else f"pid {self._process.pid}"
        return f"<ModelSupervisor {self._config.command[0]}, {pid}, {self.exits} exits>"

    @property
    def running(self) -> bool:
        """Whether the model server's process runs."""
        return self._process is not None and self._process.returncode is None

    def ready(self) -> None:
        """Record that the running server is ready: its startup deadline ends."""
        if self.running and not self._ready.is_set():
            self._ready_at = time.monotonic()
            self._ready.set()
            self._causes.reset()

    async def run(self) -> None:
        """Start the server, and start it again after an exit. Returns after `stop`, or when it gives up."""
        process_group.kill(await asyncio.to_thread(process_group.abandoned))
        pause = _PAUSE_SECONDS
        while not self._stopping:
            fault = await self._run_once()
            if self._stopping:
                return
            self._copy_last_lines()
            if self._ready_at and time.monotonic() - self._ready_at > _STABLE_SECONDS:
                self.exits, pause = 0, _PAUSE_SECONDS
            self.exits += 1
            self.gave_up = fault.final or self.exits >= _EXITS_MAX
            if self.gave_up and not fault.final:
                loop = f"crash loop: {self.exits} exits in a row, so it is not started again"
                fault = ServerFailure(f"{fault.sentence}; {loop}")
            self._on_failed(fault)
            log.warning(
                "model_server_ended", exits=self.exits, restart_in_seconds=None if self.gave_up else pause
            )
            if self.gave_up:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    async def stop(self) -> None:
        """Stop the server: SIGTERM to its process group, then SIGKILL to all that is left."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(self._config.stop_seconds_max):
                    await process.wait()
            except TimeoutError:
                log.warning("model_server_killed", after_seconds=self._config.stop_seconds_max)
        await self._clean_up()
        self._output.close()

    # --- one run

    async def _run_once(self) -> ServerFailure:
        """Start the server and wait for its exit."""
        self._ready.clear()
        self._ready_at = 0.0
        self._causes.reset()
        self._output.tail.clear()
        self._lines_copied = self._lines_skipped = 0
        self._oom_kills = process_group.oom_kills()
        self._started_at = time.monotonic()
        if await self._port_is_taken():
            return ServerFailure(
                "another process already listens on the model server's port: set MODEL_PORT to a free port"
            )
        spawn = asyncio.ensure_future(self._spawn())
        try:
            # Cancelled half-way, uvloop kills the process without waiting for it.
            await asyncio.shield(spawn)
        except OSError as fault:
            reason = fault.strerror or str(fault)
            program = self._config.command[0]
            return ServerFailure(
                f"the model server cannot be started: {program}: {reason}; install it or correct the name",
                final=True,
                everywhere=isinstance(fault, FileNotFoundError | PermissionError),
            )
        except asyncio.CancelledError:
            await asyncio.gather(spawn, return_exceptions=True)
            raise
        assert self._process is not None
        status = await self._wait()
        if status is None:
            last = self._last_line()
            seconds = self._config.startup_seconds_max
            await self._clean_up()
            return ServerFailure(f"the model server was not ready after {seconds:.0f} s{last}", final=True)
        await self._clean_up()
        return self._describe(status)

    async def _wait(self) -> int | None:
        """The exit status, or None if the server was not ready in time."""
        assert self._process is not None
        exited = asyncio.ensure_future(self._process.wait())
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait(
                {exited, ready},
                timeout=self._config.startup_seconds_max,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not exited.done() and not ready.done():
                return None
            return await exited
        finally:
            for each in (exited, ready):
                each.cancel()

    async def _port_is_taken(self) -> bool:
        """Whether another process keeps the port. One that is just ending gets some seconds."""
        deadline = time.monotonic() + _PORT_SECONDS
        while await self._accepts_connections():
            if time.monotonic() > deadline:
                return True
            await asyncio.sleep(0.2)
        return False

    async def _spawn(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        environment = {name: value for name, value in self._environment.items() if name not in _CREDENTIALS}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._config.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=self._directory,
                env={**environment, **self._config.env, process_group.MARK: self._mark},
                start_new_session=True,
            )
        except BaseException:
            os.close(self._reader)
            self._reader = -1
            raise
        finally:
            os.close(writer)
        asyncio.get_running_loop().add_reader(self._reader, self._readable)
        process_group.prefer_for_oom_kill(self._process.pid)
        log.info("model_server_started", pid=self._process.pid, program=self._config.command[0])

    def _readable(self) -> None:
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_reader()
            return
        self._see(self._output.feed(data))

    def _see(self, lines: list[str]) -> None:
        for line in lines:
            self._causes.see(line)
            if not self._ready.is_set() and self._lines_copied < _LOADING_LINES_MAX:
                self._lines_copied += 1
                self._lines_skipped = 0
                log.info("model_log", line=line[:1000])
            else:
                self._lines_skipped += 1
            if self._downloaded is not None and not self._ready.is_set():
                self._see_download(self._downloaded, line)
            self._on_line(line)

    def _copy_last_lines(self) -> None:
        """The end of the log is what explains an exit. The machine, and this log's file, may be gone soon."""
        for line in list(self._output.tail)[-self._lines_skipped :] if self._lines_skipped else ():
            log.info("model_log", line=line)

    def _see_download(self, pattern: re.Pattern[str], line: str) -> None:
        if found := pattern.search(line):
            stated = found.groupdict().get("seconds")
            self._on_downloaded(float(stated) if stated else time.monotonic() - self._started_at)

    def _close_reader(self) -> None:
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
            self._see(self._output.end())

    async def _clean_up(self) -> None:
        """Kill what is left of the server, and read its last output."""
        process = self._process
        session = 0 if process is None else process.pid
        for _ in range(3):
            left = await asyncio.to_thread(process_group.marked, self._mark, session)
            if not left:
                break
            process_group.kill(left)
        if process is not None:
            await process.wait()
        deadline = time.monotonic() + _OUTPUT_SECONDS
        while self._reader >= 0 and time.monotonic() < deadline:  # noqa: ASYNC110 - the reader closes by callback
            await asyncio.sleep(0.01)
        self._close_reader()
        self._process = None  # its id may soon be that of another session

    # --- the sentence

    def _describe(self, status: int) -> ServerFailure:
        """What happened."""
        after = f"after {time.monotonic() - self._started_at:.1f} s"
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"exited with status {status}"
        ended = f"the model server {how} {after}"
        if process_group.oom_kills() > self._oom_kills:
            return ServerFailure(f"{_OUT_OF_MEMORY}; {ended}{self._last_line()}")
        if self._causes.found is not None:
            cause, line = self._causes.found
            sentence = f"{cause.sentence}; {ended}; its log says: {line}"
            return ServerFailure(sentence, final=cause.final, everywhere=cause.everywhere)
        if status == -signal.SIGKILL:
            ended += (
                "; probably the memory (RAM) is full: choose a smaller model, or an offer with more memory"
            )
        return ServerFailure(f"{ended}{self._last_line()}")

    def _last_line(self) -> str:
        if self._causes.error:
            return f"; its log says: {self._causes.error}"
        lines = self._output.tail
        return f"; its log ends with: {' | '.join(list(lines)[-3:])}" if lines else "; its log is empty"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
