"""Detects a model server that exits while it loads, from the writers of its log and the processes of the start script.

Such a model server leaves nothing to probe, and the worker would wait until its boot deadline. Linux only: without
/proc nothing is reported.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

_POLL_SECONDS = 1.0
_ALONE_SECONDS = 5.0
"""Without a writer of the log, while the start script runs only this worker."""
_BUSY_SECONDS = 60.0
"""The same while the start script runs another process, which may start the model server next."""
_TAIL_BYTES = 8192
_TAIL_LINES = 20
_ABSENT_SECONDS = 10.0
"""A longer time between two looks means that this process was suspended."""
_LINE_CHARS = 200
_FATAL = ("traceback", "error", "no such file", "not found", "failed", "fatal", "killed", "out of memory")
_IDLE = frozenset({"sleep", "tail"})
"""Processes that only keep a start script alive."""


class ModelProcess:
    """Watches the processes of a model server until it is loaded."""

    def __init__(self, log: Path, *, accepts_connections: Callable[[], Awaitable[bool]]) -> None:
        """`accepts_connections` tells whether the model server accepts connections."""
        self._log = log
        self._accepts_connections = accepts_connections
        self._seen_writer = False
        self._gone_since: float | None = None
        self._looked_at = time.monotonic()

    async def watch(self, failed: Callable[[str], None], recovered: Callable[[], None]) -> None:
        """Call `failed` when the model server exits before it is loaded, `recovered` when it is started again.

        Runs until cancelled.
        """
        reported = False
        while True:
            ended = await self._exit_message()
            if ended and not reported:
                failed(ended)
            elif reported and not ended:
                recovered()
            reported = bool(ended)
            await asyncio.sleep(_POLL_SECONDS)

    async def _exit_message(self) -> str:
        """The error of an exited model server, or an empty string."""
        found = await asyncio.to_thread(writers, self._log)
        if found:
            self._seen_writer = True
        if found is None or found or await self._accepts_connections():
            self._gone_since = None
            return ""
        lines = await asyncio.to_thread(_tail, self._log)
        # A worker that started late has seen no writer. Then the log must contain an error.
        if not self._seen_writer and not any(word in line.lower() for line in lines for word in _FATAL):
            return ""
        now = time.monotonic()
        # While this machine was suspended, no process could start a model server.
        if self._gone_since is None or now - self._looked_at > _ABSENT_SECONDS:
            self._gone_since = now
        self._looked_at = now
        alone = not await asyncio.to_thread(_other_processes)
        if now - self._gone_since < (_ALONE_SECONDS if alone else _BUSY_SECONDS):
            return ""
        end = f"ends with: {lines[-1][:_LINE_CHARS]}" if lines else "is empty"
        return f"the model server ended before it was loaded; its log {end}"


def writers(path: Path) -> list[int] | None:
    """The processes that have the file open for writing. None if unknown, or without a file."""
    try:
        wanted = path.stat()
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return None
    return [pid for pid in pids if pid != os.getpid() and _writes(pid, (wanted.st_dev, wanted.st_ino))]


def _writes(pid: int, wanted: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)  # noqa: PTH208 - thousands of names
    except OSError:
        return False
    for number in numbers:
        try:
            found = os.stat(f"{folder}/{number}")  # noqa: PTH116
            if (found.st_dev, found.st_ino) != wanted:
                continue
            info = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
        except OSError:
            continue
        flags = next((int(line.split()[1], 8) for line in info.splitlines() if line.startswith("flags:")), 0)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return True
    return False


def _other_processes() -> list[int]:
    """The other processes of the start script (the parent of this process). Never empty if the parent is init."""
    script = os.getppid()
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            head, _, rest = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(entry.name))
            names[int(entry.name)] = head.partition("(")[2]
    if script <= 1:
        return [script]
    found, pending = [], [pid for pid in children.get(script, []) if pid != os.getpid()]
    while pending:
        pid = pending.pop()
        descendants = children.get(pid, [])
        pending += descendants
        if not descendants and names.get(pid) not in _IDLE:
            found.append(pid)
    return found


def _tail(path: Path) -> list[str]:
    """The last lines of the log that contain text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    shown = (
        "".join(char if char.isprintable() else " " for char in line).strip() for line in text.splitlines()
    )
    return [line for line in shown if line][-_TAIL_LINES:]
