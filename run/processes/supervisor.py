"""Starts child processes, restarts them when they exit, and stops them in order.

Every child runs in its own session, so that Ctrl-C reaches only the supervisor. If the supervisor is killed, the kernel
terminates the children (Linux: parent-death signal).
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from run.state_folder.secure_files import UMASK, append_private

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
RESTART_SECONDS_MIN = 0.2
RESTART_SECONDS_MAX = 10.0
STABLE_SECONDS = 30.0
"""After this run time, the restart delay of a child is reset."""


@dataclass(slots=True)
class Child:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] = field(repr=False)
    stop_seconds_max: float = 10.0
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    watch_task: asyncio.Task[None] | None = field(default=None, repr=False)
    spawn_task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id; None if the process does not run."""
        return self.process.pid if self.process and self.process.returncode is None else None

    def __repr__(self) -> str:
        return f"<Child {self.name} pid {self.pid} restarts {self.restarts}>"


class ProcessSupervisor:
    """Starts children in order, restarts them when they exit, and stops them in reverse order."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._stopping = False

    async def start(self, child: Child) -> None:
        """Start the child and keep it running."""
        self.children[child.name] = child
        await self._spawn(child)
        child.watch_task = asyncio.create_task(self._watch(child), name=f"watch {child.name}")

    async def stop(self) -> None:
        """Stop every child, the last started first: SIGTERM, then SIGKILL after `stop_seconds_max`."""
        self._stopping = True
        watches = [child.watch_task for child in self.children.values() if child.watch_task]
        for watch in watches:
            watch.cancel()
        spawns = [child.spawn_task for child in self.children.values() if child.spawn_task]
        await asyncio.gather(*watches, *spawns, return_exceptions=True)
        for child in reversed(self.children.values()):
            await self._stop_child(child)

    async def _spawn(self, child: Child) -> None:
        """Shield the creation of the process: cancelled half-way, uvloop kills the process without waiting for it."""
        child.spawn_task = asyncio.create_task(self._create_process(child), name=f"start {child.name}")
        await asyncio.shield(child.spawn_task)

    async def _create_process(self, child: Child) -> None:
        with append_private(child.log_file) as output:
            # The output goes to a file: with a pipe that is not read, the child would block.
            child.process = await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(child.environment),
                start_new_session=True,
                preexec_fn=_before_exec,  # uvloop has no umask argument
            )
        log.info("child.started", child=child.name, pid=child.process.pid)

    async def _watch(self, child: Child) -> None:
        pause = RESTART_SECONDS_MIN
        while not self._stopping:
            assert child.process is not None
            started = time.monotonic()
            code = await child.process.wait()
            if self._stopping:
                return
            if time.monotonic() - started > STABLE_SECONDS:
                pause = RESTART_SECONDS_MIN
            log.warning("child.exited", child=child.name, exit_code=code, restart_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_SECONDS_MAX)
            child.restarts += 1
            while not await self._respawn(child):
                await asyncio.sleep(pause)
                pause = min(pause * 2, RESTART_SECONDS_MAX)

    async def _respawn(self, child: Child) -> bool:
        """Start the child again; return False on a system error, e.g. a full disk, which the caller retries."""
        try:
            await self._spawn(child)
        except OSError as fault:
            log.error("child.not_started", child=child.name, error=str(fault))
            return False
        return True

    async def _stop_child(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), child.stop_seconds_max)
        except TimeoutError:
            log.warning("child.killed", child=child.name, after_seconds=child.stop_seconds_max)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        log.info("child.stopped", child=child.name, exit_code=process.returncode)


def _before_exec() -> None:
    os.umask(UMASK)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
