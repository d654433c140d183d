"""The processes of an instance: start them in a group, watch, end them together, adopt them after a restart."""

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
"""Interval of polling a group that is ending: only its first process can be waited for."""
LAST_SECONDS = 1.0
"""Between SIGTERM and SIGKILL for processes whose parent did not end within the grace."""
UNKILLABLE_SECONDS = 20.0
"""A process blocked in the kernel (failed disk, hung driver) survives SIGKILL."""

INIT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py"))]
"""Keeps detached processes among its descendants on systems without control groups."""

logger = structlog.get_logger(__name__)


class ProcessesLeft(RuntimeError):
    """Processes of an instance survived SIGKILL."""


class InstanceProcess:
    """A running instance: its first process (pid and start time) and every process of its control group.

    Without a control group, the first process is `init.py` and every descendant belongs to the instance.
    """

    def __init__(
        self,
        tag: str,
        pid: int,
        started: int,
        *,
        group: Path | None = None,
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._group = group
        self.tag = tag
        self.pid = pid
        self.started = started
        self._child = child
        self._pidfd: int | None = None

    @classmethod
    def start(
        cls,
        command: list[str],
        *,
        tag: str,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        group: Path | None,
    ) -> "InstanceProcess":
        """Run the command in the control group `group`, if given, and append its output to `log`.

        Raises:
            OSError: the command cannot be run.
        """
        if group is not None:
            # The shell joins the group before it executes the command, so nothing runs outside the group.
            procs = str(group / "cgroup.procs")
            command = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', procs, *command]
        else:
            command = [*INIT, *command]
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**env, proc.TAG_VARIABLE: tag},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        now = proc.stat(child.pid)
        return cls(tag, child.pid, now.started if now else 0, group=group, child=child)

    @classmethod
    def adopt(
        cls, tag: str, pid: int, started: int, boot_id: str, group: Path | None
    ) -> "InstanceProcess | None":
        """The process that an earlier marketplace started; None if it has exited or the pid was reused."""
        now = proc.stat(pid)
        if boot_id != proc.boot_id() or now is None or not now.alive or now.started != started:
            return None
        return cls(tag, pid, started, group=group)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call `on_exit` once when the first process exits."""
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
        """Whether the first process runs."""
        if self._child is not None:
            return self._child.poll() is None
        now = proc.stat(self.pid)
        return now is not None and now.alive and now.started == self.started

    @property
    def exit_code(self) -> int | None:
        """The exit code; None if unknown, because an earlier marketplace started the process."""
        return self._child.poll() if self._child is not None else None

    def living(self) -> list[int]:
        """Every running process of the instance."""
        found = set(proc.members(self.tag, self.pid))
        if self._group is not None:
            grouped = ((pid, proc.stat(pid)) for pid in cgroup.members(self._group))
            found |= {pid for pid, now in grouped if now is not None and now.alive}
        return sorted(found)

    async def _tell(
        self, left: list[int], told: set[int], deadline: float, hurry: Callable[[], bool], *, only_roots: bool
    ) -> list[int]:
        """Send SIGTERM once to each process, or to each whose parent has exited. Returns those that still run then."""
        while left and time.monotonic() < deadline and not hurry():
            new = [pid for pid in (self._roots(left) if only_roots else left) if pid not in told]
            told.update(new)
            proc.send(new, signal.SIGTERM)
            # A suspended process receives SIGTERM only after SIGCONT.
            proc.send(left, signal.SIGCONT)
            await asyncio.sleep(POLL_SECONDS)
            left = self.living()
        return left

    def _roots(self, pids: list[int]) -> list[int]:
        """The processes without a parent among these. `init.py`, which ignores SIGTERM, is nobody's parent here."""
        parents = set(pids) if self._group is not None else set(pids) - {self.pid}
        found = ((pid, proc.stat(pid)) for pid in pids)
        return [pid for pid, now in found if now is not None and now.parent not in parents]

    async def end(self, *, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        """Send SIGTERM, then SIGKILL after the grace or when `hurry()` is true; return when all processes exited.

        A process receives SIGTERM when its parent has exited, as in a container, where it goes to the first process only:
        a worker that drains still needs its model server.

        Raises:
            ProcessesLeft: some processes survive SIGKILL.
        """
        left = self.living()
        if grace_seconds > 0:
            told: set[int] = set()
            left = await self._tell(left, told, time.monotonic() + grace_seconds, hurry, only_roots=True)
            if left and not told.issuperset(left):
                left = await self._tell(left, told, time.monotonic() + LAST_SECONDS, hurry, only_roots=False)
        began = time.monotonic()
        given_up = began + UNKILLABLE_SECONDS
        while left:
            if self._group is not None:
                cgroup.kill(self._group)
            elif time.monotonic() - began < UNKILLABLE_SECONDS / 2:
                # `init.py` exits by itself when it has no children left. Killed earlier, it could lose a new child.
                proc.send([self.pid], signal.SIGCONT)
                left = [pid for pid in left if pid != self.pid]
            proc.send(left, signal.SIGKILL)
            await asyncio.sleep(POLL_SECONDS / 4)
            left = self.living()
            if left and time.monotonic() > given_up:
                logger.error("processes_survive_sigkill", tag=self.tag, pids=left)
                named = ", ".join(map(str, left))
                raise ProcessesLeft(f"{len(left)} processes survive SIGKILL: {named}")
        self.unwatch()
        if self._child is not None:
            self._child.poll()
