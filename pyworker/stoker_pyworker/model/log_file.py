"""A log file, followed as it grows, is rotated or truncated, for as long as somebody reads."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

_LOOK_SECONDS = 0.1
_READ_BYTES = 64 * 1024
_LINE_BYTES_MAX = 64 * 1024


class LogFile:
    """The file that a name stands for now; there may be none yet."""

    def __init__(self, path: Path, *, told: Callable[[str], None] = lambda _: None) -> None:
        """`told` hears what keeps the file from being read, and an empty string when that is over."""
        self._path = path
        self._told = told
        self._fault = ""
        self._file: BinaryIO | None = None
        self._inode = -1
        self._rest = b""

    async def lines(self) -> AsyncIterator[str]:
        """Lines from its start and then as they are written; a new file of that name is read from its start."""
        try:
            while True:
                come = self._come()
                for line in come or ():
                    yield line.decode("utf-8", "replace").rstrip()
                await asyncio.sleep(_LOOK_SECONDS if come is None else 0)
        finally:
            self._close()

    def _come(self) -> list[bytes] | None:
        """The lines that came to their end since the last look; None: nothing has come."""
        fault = data = None
        cut = []
        try:
            found = _stat(self._path)
            if found is not None and (self._file is None or found.st_ino != self._inode):
                # What was written to the old file before it was moved away is read first.
                data = self._read()
                if not data:
                    cut = [self._rest] if self._rest else []
                    self._begin(found)
            elif found is not None and self._file is not None and found.st_size < self._file.tell():
                self._begin(found)
        except OSError as error:
            fault = error.strerror or str(error)
        self._tell(fault)
        data = data or self._read()
        if not data:
            return cut or None
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            whole.append(self._rest)
            self._rest = b""
        return cut + whole

    def _read(self) -> bytes:
        return b"" if self._file is None else self._file.read(_READ_BYTES) or b""

    def _begin(self, found: os.stat_result) -> None:
        self._close()
        self._rest = b""
        self._inode = found.st_ino
        # Should it have become a FIFO since it was looked at, nobody waits for its writer.
        self._file = open(self._path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - it stays open

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _tell(self, fault: str | None) -> None:
        said = f"model_log_file {self._path}: {fault}" if fault else ""
        if said != self._fault:
            self._fault = said
            self._told(said)


def _stat(path: Path) -> os.stat_result | None:
    """What is there now; None: nothing yet.

    Raises:
        OSError: nothing that can be followed: opening a FIFO waits for its writer, and a device may have no end.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return found
    kind = "directory" if stat.S_ISDIR(mode) else "FIFO" if stat.S_ISFIFO(mode) else "device or socket"
    raise OSError(f"a regular file was expected, a {kind} came")
