"""Whether a model server that does not answer yet can still come: the process that writes its log, and the start script.

A model server that exits while it loads leaves nothing to probe: without this, a worker waits for it until its boot
deadline. Linux only; where /proc tells nothing, nothing is reported.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

_LOOK_SECONDS = 1.0
_ALONE_SECONDS = 5.0
"""Without a writer of the log, while the start script runs nothing but this worker."""
_BUSY_SECONDS = 60.0
"""The same while the start script runs something else, which may be what starts the model server next."""
_TAIL_BYTES = 8192
_TAIL_LINES = 20
_LINE_CHARS = 200
_FATAL = ("traceback", "error", "no such file", "not found", "failed", "fatal", "killed", "out of memory")
_IDLE = frozenset({"sleep", "tail"})
"""Processes that a start script leaves waiting."""


class ModelProcess:
    """Watches the processes around a model server until it is loaded."""

    def __init__(self, log: Path, *, answers: Callable[[], Awaitable[bool]]) -> None:
        """`answers` says whether the model server takes connections."""
        self._log = log
        self._answers = answers
        self._seen = False
        self._gone_since: float | None = None

    async def watch(self, failed: Callable[[str], None], recovered: Callable[[], None]) -> None:
        """Call `failed` when the model server has ended before it was loaded, `recovered` when it is started again.

        Runs until cancelled.
        """
        told = False
        while True:
            ended = await self._ended()
            if ended and not told:
                failed(ended)
            elif told and not ended:
                recovered()
            told = bool(ended)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ended(self) -> str:
        """What has ended, or an empty string."""
        found = await asyncio.to_thread(writers, self._log)
        if found:
            self._seen = True
        if found is None or found or await self._answers():
            self._gone_since = None
            return ""
        lines = await asyncio.to_thread(_tail, self._log)
        # A worker that started late has seen no writer: then the log itself has to tell of a failure.
        if not self._seen and not any(word in line.lower() for line in lines for word in _FATAL):
            return ""
        now = time.monotonic()
        if self._gone_since is None:
            self._gone_since = now
        alone = not await asyncio.to_thread(_others)
        if now - self._gone_since < (_ALONE_SECONDS if alone else _BUSY_SECONDS):
            return ""
        said = f"; its log ends with: {lines[-1][:_LINE_CHARS]}" if lines else "; its log is empty"
        return f"the model server ended before it was loaded{said}"


def writers(path: Path) -> list[int] | None:
    """The processes that have the file open for writing; None where that cannot be known or there is no file."""
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


def _others() -> list[int]:
    """What the start script, this process's parent, runs besides this worker; as if busy when it is the system's init."""
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
    found, ahead = [], [pid for pid in children.get(script, []) if pid != os.getpid()]
    while ahead:
        pid = ahead.pop()
        below = children.get(pid, [])
        ahead += below
        if not below and names.get(pid) not in _IDLE:
            found.append(pid)
    return found


def _tail(path: Path) -> list[str]:
    """The last lines of the log that hold text."""
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
