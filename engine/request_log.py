"""The request log: one JSON object per line and request, the input of `stokerd simulate`.

A line holds arrival, endpoint, cost, wait, duration and outcome; no payload, key or address. It is written when nothing
more can happen to the request, so the lines are not in the order of arrival.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog

from engine.routing.requests.request_queue import QueuedRequest
from engine.settings import RequestLogSettings

log = structlog.get_logger("engine.request_log")

FLUSH_SECONDS = 1.0
PENDING_MAX = 100_000
"""Lines kept while the disk is slow or full: about 20 s of routing on one core. Further lines are dropped."""
_WARNING_SECONDS = 60.0


class Outcome(StrEnum):
    """How a request ended, as far as the engine knows."""

    DONE = "done"
    """The worker reported success."""
    FAILED = "failed"
    """The worker reported a failure, and the client did not retry."""
    UNKNOWN = "unknown"
    """It was assigned to a worker that never reported its end."""
    EXPIRED = "expired"
    """It waited, and its client did not ask again."""
    TURNED_AWAY = "turned_away"
    """The queue was full."""
    CUT_OFF = "cut_off"
    """The engine stopped, or the endpoint was deleted, before it ended."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    endpoint: str
    arrived_at: float
    """Unix seconds."""
    cost: float
    waited_s: float | None
    took_s: float | None
    outcome: str
    counted_elsewhere: bool


class RequestLog:
    """Takes entries on the hot path and writes them in a thread. A disk fault never fails a request."""

    def __init__(self, settings: RequestLogSettings) -> None:
        self._settings = settings
        self._pending: list[Entry] = []
        self._encoder = msgspec.json.Encoder()
        self._warned_at = -_WARNING_SECONDS
        self.written = 0
        self.dropped = 0
        """Lines that could not be written."""

    def __repr__(self) -> str:
        return f"<RequestLog {self._settings.path}, {self.written} written, {self.dropped} dropped>"

    def record(self, endpoint: str, request: QueuedRequest, outcome: Outcome) -> None:
        """A request ended. Appends to a list only; `flush` writes."""
        if len(self._pending) >= PENDING_MAX:
            self.dropped += 1
            return
        self._pending.append(
            Entry(
                endpoint,
                request.arrived_at,
                request.cost,
                request.waited_s,
                request.took_s,
                outcome.value,
                request.counted_elsewhere,
            )
        )

    async def run(self) -> None:
        """Write the pending entries every second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write the pending entries."""
        batch, self._pending = self._pending, []
        if batch:
            await asyncio.to_thread(self._write, batch)

    def _write(self, batch: list[Entry]) -> None:
        lines = [self._line(entry) for entry in batch]
        try:
            for part in _parts(lines, self._room, self._settings.file_bytes_max):
                if part is None:
                    self._rotate()
                else:
                    self._append(b"".join(part))
                    self.written += len(part)
                    lines = lines[len(part) :]
        except OSError as fault:
            self.dropped += len(lines)
            self._warn(fault)

    def _line(self, entry: Entry) -> bytes:
        line: dict[str, object] = {
            "at": round(entry.arrived_at, 3),
            "endpoint": entry.endpoint,
            "cost": entry.cost,
            "wait_s": None if entry.waited_s is None else round(entry.waited_s, 3),
            "took_s": None if entry.took_s is None else round(entry.took_s, 3),
            "outcome": entry.outcome,
        }
        if entry.counted_elsewhere:
            line["again"] = True
        return self._encoder.encode(line) + b"\n"

    def _room(self) -> int:
        try:
            return self._settings.file_bytes_max - self._settings.path.stat().st_size
        except FileNotFoundError:
            return self._settings.file_bytes_max

    def _append(self, data: bytes) -> None:
        path = self._settings.path
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                data = b"\n" + data  # the previous engine was killed while it wrote a line
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)

    def _rotate(self) -> None:
        path, most = self._settings.path, self._settings.files_max
        for number in range(most - 1, 0, -1):
            older = path if number == 1 else _numbered(path, number - 1)
            if older.exists():
                older.replace(_numbered(path, number))
        path.unlink(missing_ok=True)

    def _warn(self, fault: OSError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            log.warning(
                "request_log_not_written",
                path=str(self._settings.path),
                error=fault.strerror or str(fault),
                dropped=self.dropped,
            )


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _parts(lines: list[bytes], room: Callable[[], int], file_bytes_max: int) -> Iterable[list[bytes] | None]:
    """Groups of whole lines that fit into the file, and None where a new file has to be started."""
    left = room()
    part: list[bytes] = []
    for line in lines:
        if len(line) > left and left < file_bytes_max:
            if part:
                yield part
            yield None
            part, left = [], file_bytes_max
        part.append(line)
        left -= len(line)
    if part:
        yield part
