"""Keeps a few child processes running, restarts those that die, and leaves none behind.

Every child runs in a session of its own, so that Ctrl-C reaches only the supervisor, which then ends the children in
order. If the supervisor itself is killed, the kernel ends them (Linux: parent-death signal).
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
"""A child that ran this long has recovered: its next death is answered at once again."""


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
    _watcher: asyncio.Task[None] | None = None
    _birth: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        return self.process.pid if self.process and self.process.returncode is None else None

    def __repr__(self) -> str:
        return f"<Child {self.name} pid {self.pid} restarts {self.restarts}>"


class ProcessSupervisor:
    """Starts children in order, restarts them when they die, ends them in reverse order."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._stopping = False

    async def start(self, child: Child) -> None:
        """Start the child and keep it running from now on."""
        self.children[child.name] = child
        await self._spawn(child)
        child._watcher = asyncio.create_task(self._watch(child), name=f"watch {child.name}")

    async def stop(self) -> None:
        """End every child, the last started first: SIGTERM, then SIGKILL after its grace."""
        self._stopping = True
        watchers = [child._watcher for child in self.children.values() if child._watcher]
        for watcher in watchers:
            watcher.cancel()
        births = [child._birth for child in self.children.values() if child._birth]
        await asyncio.gather(*watchers, *births, return_exceptions=True)
        for child in reversed(self.children.values()):
            await self._end(child)

    async def _spawn(self, child: Child) -> None:
        """Cancelled half-way, the loop would kill the newborn behind our back, and uvloop would not even wait for its end."""
        child._birth = asyncio.create_task(self._bear(child), name=f"start {child.name}")
        await asyncio.shield(child._birth)

    async def _bear(self, child: Child) -> None:
        with append_private(child.log_file) as output:
            # the output goes to a file: a worker whose pipe nobody drains would freeze
            child.process = await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(child.environment),
                start_new_session=True,
                preexec_fn=_at_birth,  # uvloop knows no umask argument
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
            log.warning("child.died", child=child.name, exit_code=code, restart_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_SECONDS_MAX)
            child.restarts += 1
            while not await self._spawned_again(child):
                await asyncio.sleep(pause)
                pause = min(pause * 2, RESTART_SECONDS_MAX)

    async def _spawned_again(self, child: Child) -> bool:
        """A full disk or a full process table lets no child start now; who gave up then would leave it dead for ever."""
        try:
            await self._spawn(child)
        except OSError as fault:
            log.error("child.not_started", child=child.name, error=str(fault))
            return False
        return True

    async def _end(self, child: Child) -> None:
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
        log.info("child.ended", child=child.name, exit_code=process.returncode)


def _at_birth() -> None:
    os.umask(UMASK)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
