"""The model server's output: lines for the worker, and a log file of bounded size."""

import contextlib
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

_LINE_BYTES_MAX = 16 * 1024
_SHOWN_CHARS = 300
_TAIL_LINES = 60
"""Enough for the traceback of an exit."""
_LINE_END = re.compile(rb"[\r\n]+")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OutputLog:
    """Writes output to a file and keeps its last lines. A full disk never stops the worker."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._file: BinaryIO | None = None
        self._size = 0
        self._rest = b""
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        """The last lines with text, without colours."""

    def feed(self, data: bytes) -> list[str]:
        """Log the output. Returns the lines that it completes; a progress bar's carriage return ends a line too."""
        self._write(data)
        *whole, self._rest = _LINE_END.split(self._rest + data)
        if len(self._rest) > _LINE_BYTES_MAX:
            whole.append(self._rest)
            self._rest = b""
        return self._cleaned(whole)

    def end(self) -> list[str]:
        """The unfinished last line of a process that has exited."""
        rest, self._rest = self._rest, b""
        return self._cleaned([rest])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cleaned(self, lines: list[bytes]) -> list[str]:
        cleaned = []
        for line in lines:
            text = _ESCAPE.sub("", line.decode("utf-8", "replace"))
            text = "".join(char if char.isprintable() else " " for char in text).strip()
            if text:
                cleaned.append(text)
                self.tail.append(text[:_SHOWN_CHARS])
        return cleaned

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._file is None or self._size + len(data) > self._bytes_max:
                self._open()
            if self._file is not None:
                self._file.write(data)
                self._size += len(data)

    def _open(self) -> None:
        """Open the file, and rename a full one first."""
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._size = self._path.stat().st_size
            if self._size * 2 > self._bytes_max:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
