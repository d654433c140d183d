"""The engine's own record of requests, one JSON object per line: what `stokerd simulate` reads.

No payload, no key, no address: when a request came, for which endpoint, how much work it was, how long it waited, and how
it ended. A line is written when nothing more can happen to the request, so lines are not in the order of arrival.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog

from engine.routing.request_queue import QueuedRequest
from engine.settings import RequestLogSettings

log = structlog.get_logger("engine.request_log")

FLUSH_SECONDS = 1.0
PENDING_MAX = 100_000
"""Lines kept while the disk is slow or full: some 20 s of a core's routing. What comes on top is counted and dropped."""
_COMPLAIN_SECONDS = 60.0

Entry = tuple[str, float, float, float | None, float | None, str, bool]


class Outcome(StrEnum):
    """How a request ended, as far as the engine was told."""

    DONE = "done"
    """The worker said that it finished it."""
    FAILED = "failed"
    """The worker said that it failed, and it did not come again."""
    UNKNOWN = "unknown"
    """It was given to a worker that never spoke of its end."""
    EXPIRED = "expired"
    """It waited, and its client did not come again."""
    TURNED_AWAY = "turned_away"
    """The line was full."""
    CUT_OFF = "cut_off"
    """The engine stopped, or the endpoint was deleted, before it ended."""


class RequestLog:
    """Takes entries on the hot path, writes them from a thread. A disk that fails never costs a request."""

    def __init__(self, settings: RequestLogSettings) -> None:
        self._settings = settings
        self._pending: list[Entry] = []
        self._encoder = msgspec.json.Encoder()
        self._complained_at = -_COMPLAIN_SECONDS
        self.written = 0
        self.dropped = 0
        """Lines that the disk did not take."""

    def __repr__(self) -> str:
        return f"<RequestLog {self._settings.path}, {self.written} written, {self.dropped} dropped>"

    def note(self, endpoint: str, place: QueuedRequest, outcome: Outcome) -> None:
        """A request ended. Costs an append; nothing is written here."""
        if len(self._pending) >= PENDING_MAX:
            self.dropped += 1
            return
        self._pending.append(
            (
                endpoint,
                place.arrived_at,
                place.cost,
                place.waited_s,
                place.took_s,
                outcome.value,
                place.again,
            )
        )

    async def run(self) -> None:
        """Write what was noted, every second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted until now."""
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
            self._complain(fault)

    def _line(self, entry: Entry) -> bytes:
        endpoint, at, cost, waited, took, outcome, again = entry
        said: dict[str, object] = {
            "at": round(at, 3),
            "endpoint": endpoint,
            "cost": cost,
            "wait_s": None if waited is None else round(waited, 3),
            "took_s": None if took is None else round(took, 3),
            "outcome": outcome,
        }
        if again:
            said["again"] = True
        return self._encoder.encode(said) + b"\n"

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
                data = b"\n" + data  # the last engine was killed within a line
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

    def _complain(self, fault: OSError) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_SECONDS:
            self._complained_at = now
            log.warning(
                "request_log_not_written",
                path=str(self._settings.path),
                error=fault.strerror or str(fault),
                dropped=self.dropped,
            )


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _parts(lines: list[bytes], room: Callable[[], int], file_bytes_max: int) -> Iterable[list[bytes] | None]:
    """Whole lines that fit into the file, and None each time that a new one is to be begun."""
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
