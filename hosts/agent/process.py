"""An instance's processes: started in a group of their own, watched, ended together, found again after a restart."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from hosts.agent import cgroup, proc

POLL_SECONDS = 0.03
"""Between looks at a group that was told to end: only its first process can be waited for."""
UNKILLABLE_SECONDS = 20.0
"""A process stuck in the kernel (a dead disk, a hung driver) outlives SIGKILL."""

INIT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py"))]
"""Keeps processes that detach themselves among its descendants, where there is no control group."""

logger = structlog.get_logger(__name__)


class ProcessesLeft(RuntimeError):
    """Processes of an instance did not end, though they were killed."""


class InstanceProcess:
    """A running instance: its first process, by pid and start time, and every process of its control group.

    Where no control group can be made, the first process is `init.py`, and every descendant belongs to the instance.
    """

    def __init__(
        self,
        mark: str,
        pid: int,
        started: int,
        *,
        group: Path | None = None,
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._group = group
        self.mark = mark
        self.pid = pid
        self.started = started
        self._child = child
        self._pidfd: int | None = None

    @classmethod
    def start(
        cls,
        command: list[str],
        *,
        mark: str,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        group: Path | None,
    ) -> "InstanceProcess":
        """Run the command; its output is appended to `log`. `group` is its control group, if there can be one.

        Raises:
            OSError: it cannot be run.
        """
        if group is not None:
            # The shell joins the group before it becomes the command: not one instruction runs outside.
            procs = str(group / "cgroup.procs")
            command = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', procs, *command]
        else:
            command = [*INIT, *command]
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**env, proc.MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        now = proc.stat(child.pid)
        return cls(mark, child.pid, now.started if now else 0, group=group, child=child)

    @classmethod
    def adopt(
        cls, mark: str, pid: int, started: int, boot_id: str, group: Path | None
    ) -> "InstanceProcess | None":
        """The process that an earlier marketplace started, if it is still that one and alive."""
        now = proc.stat(pid)
        if boot_id != proc.boot_id() or now is None or not now.alive or now.started != started:
            return None
        return cls(mark, pid, started, group=group)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call once when the first process ends."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self.unwatch()
            on_exit()

        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            loop.call_soon(on_exit)
            return
        loop.add_reader(self._pidfd, ended)

    def unwatch(self) -> None:
        """Stop watching."""
        if self._pidfd is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    @property
    def alive(self) -> bool:
        """Whether the first process lives."""
        if self._child is not None:
            return self._child.poll() is None
        now = proc.stat(self.pid)
        return now is not None and now.alive and now.started == self.started

    @property
    def exit_code(self) -> int | None:
        """Known only of processes that this marketplace started itself."""
        return self._child.poll() if self._child is not None else None

    def living(self) -> list[int]:
        """Every living process of the instance."""
        found = set(proc.members(self.mark, self.pid))
        if self._group is not None:
            grouped = ((pid, proc.stat(pid)) for pid in cgroup.members(self._group))
            found |= {pid for pid, now in grouped if now is not None and now.alive}
        return sorted(found)

    async def end(self, *, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM to all, and SIGKILL to those left when the grace is over or `hurry()` says so; returns when none is left.

        Raises:
            ProcessesLeft: some live on.
        """
        deadline = time.monotonic() + grace_seconds
        left = self.living()
        if grace_seconds > 0 and left:
            proc.send(left, signal.SIGTERM)
            # Whoever was suspended hears the signal only when it goes on.
            proc.send(left, signal.SIGCONT)
            while left and time.monotonic() < deadline and not hurry():
                await asyncio.sleep(POLL_SECONDS)
                left = self.living()
        began = time.monotonic()
        given_up = began + UNKILLABLE_SECONDS
        while left:
            if self._group is not None:
                cgroup.kill(self._group)
            elif time.monotonic() - began < UNKILLABLE_SECONDS / 2:
                # `init.py` ends by itself when it has no children left; killed earlier, it would lose a newborn one.
                proc.send([self.pid], signal.SIGCONT)
                left = [pid for pid in left if pid != self.pid]
            proc.send(left, signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS / 4)
            left = self.living()
            if left and time.monotonic() > given_up:
                logger.error("processes_do_not_die", mark=self.mark, pids=left)
                named = ", ".join(map(str, left))
                raise ProcessesLeft(f"{len(left)} processes do not end, though they were killed: {named}")
        self.unwatch()
        if self._child is not None:
            self._child.poll()
