"""Follows a log file while it grows, is rotated or truncated."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

_POLL_SECONDS = 0.1
_READ_BYTES = 64 * 1024
_LINE_BYTES_MAX = 64 * 1024


class LogFile:
    """The file that currently has a name; it may not exist yet."""

    def __init__(self, path: Path, *, on_read_error: Callable[[str], None] = lambda _: None) -> None:
        """`on_read_error` receives the reason why the file is unreadable, and an empty string once it is readable."""
        self._path = path
        self._on_read_error = on_read_error
        self._read_error = ""
        self._file: BinaryIO | None = None
        self._inode = -1
        self._rest = b""

    async def lines(self) -> AsyncIterator[str]:
        """The lines of the file, then new ones as they are written. A new file of that name is read from its start."""
        try:
            while True:
                lines = self._new_lines()
                for line in lines or ():
                    yield line.decode("utf-8", "replace").rstrip()
                await asyncio.sleep(_POLL_SECONDS if lines is None else 0)
        finally:
            self._close()

    def _new_lines(self) -> list[bytes] | None:
        """The lines completed since the last call. None: nothing was written."""
        fault = data = None
        unfinished = []
        try:
            found = _stat(self._path)
            if found is not None and (self._file is None or found.st_ino != self._inode):
                # Read the rest of the old file first.
                data = self._read()
                if not data:
                    unfinished = [self._rest] if self._rest else []
                    self._open(found)
            elif found is not None and self._file is not None and found.st_size < self._file.tell():
                self._open(found)
        except OSError as error:
            fault = error.strerror or str(error)
        self._set_read_error(fault)
        data = data or self._read()
        if not data:
            return unfinished or None
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            whole.append(self._rest)
            self._rest = b""
        return unfinished + whole

    def _read(self) -> bytes:
        return b"" if self._file is None else self._file.read(_READ_BYTES) or b""

    def _open(self, found: os.stat_result) -> None:
        self._close()
        self._rest = b""
        self._inode = found.st_ino
        # O_NONBLOCK: opening a FIFO would wait for a writer, if the file was replaced since `stat`.
        self._file = open(self._path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - it stays open

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _set_read_error(self, reason: str | None) -> None:
        fault = f"model_log_file {self._path}: {reason}" if reason else ""
        if fault != self._read_error:
            self._read_error = fault
            self._on_read_error(fault)


def _stat(path: Path) -> os.stat_result | None:
    """The status of the file. None: it does not exist yet.

    Raises:
        OSError: not a regular file. Opening a FIFO waits for its writer, and a device may have no end.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return found
    kind = "directory" if stat.S_ISDIR(mode) else "FIFO" if stat.S_ISFIFO(mode) else "device or socket"
    raise OSError(f"expected a regular file, found a {kind}")
