"""The last day of every endpoint: samples of an hour in memory, minutes and decisions of a day in SQLite."""

import json
import math
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from dashboard.samples import Sample

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0
MINUTE_SECONDS = 60.0
FINE_MAX = 1_800
"""Samples in memory per endpoint: an hour at one sample every two seconds."""
_NAMES = tuple(field.name for field in fields(Sample))
_PEAKS = frozenset({"queue", "queue_oldest", "wait_p50", "wait_p99", "took_p50", "took_p99"})
"""A minute keeps the highest value of these, and the mean of the others."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS minutes (account TEXT, endpoint INTEGER, "
    + ", ".join(f"{name} REAL" for name in _NAMES)
    + ", PRIMARY KEY (account, endpoint, at)) WITHOUT ROWID"
)
_INSERT = f"INSERT OR REPLACE INTO minutes VALUES ({', '.join('?' * (len(_NAMES) + 2))})"  # noqa: S608 - constants
_SELECT = (
    f"SELECT {', '.join(_NAMES)} FROM minutes WHERE account = ? AND endpoint = ? AND at >= ? ORDER BY at"  # noqa: S608 - constants
)
_DELETE = "DELETE FROM minutes WHERE at < ?"
DECISIONS_MAX = 1_000
"""Decisions of an endpoint that a page shows. Doubled: pages of busy endpoints are twice as long."""
_DECISIONS_TABLE = (
    "CREATE TABLE IF NOT EXISTS decisions (account TEXT, endpoint INTEGER, at REAL, place INTEGER, line TEXT, "
    "PRIMARY KEY (account, endpoint, at, place)) WITHOUT ROWID"
)
_SELECT_DECISIONS = "SELECT line FROM decisions WHERE account = ? AND endpoint = ? AND at >= ? ORDER BY at DESC, place DESC LIMIT ?"

Key = tuple[str, int]
"""Account name and endpoint id."""


class History:
    """Samples by endpoint. Bounded: an hour in memory, a day on disk.

    A damaged or unwritable file costs the older part of the charts and nothing else.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._fine: dict[Key, deque[Sample]] = {}
        self._minute: dict[Key, list[Sample]] = {}
        self._database = self._open(file)

    def __repr__(self) -> str:
        return f"<History of {len(self._fine)} endpoints in {self._file or 'memory'}>"

    @staticmethod
    def _open(file: Path | None) -> sqlite3.Connection:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(file or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=OFF")
            database.execute(_TABLE)
            database.execute(_DECISIONS_TABLE)
            # another version's columns raise here
            database.execute(_SELECT, ("", 0, 0.0))
            database.execute(_SELECT_DECISIONS, ("", 0, 0.0, 0))
        except sqlite3.DatabaseError:
            database.close()
            if file is None:
                raise
            for part in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
                part.unlink(missing_ok=True)
            return History._open(file)
        return database

    def close(self) -> None:
        """Write the begun minutes and close the file."""
        self._write([(key, minute) for key, minute in self._minute.items() if minute])
        self._database.close()

    def add(self, samples: Iterable[tuple[Key, Sample]]) -> None:
        """Record samples. Ended minutes are written together."""
        ended = []
        for key, sample in samples:
            fine = self._fine.setdefault(key, deque(maxlen=FINE_MAX))
            fine.append(sample)
            while fine[0].at < sample.at - HOUR_SECONDS:
                fine.popleft()
            minute = self._minute.setdefault(key, [])
            if minute and sample.at // MINUTE_SECONDS != minute[0].at // MINUTE_SECONDS:
                ended.append((key, minute))
                minute = self._minute[key] = []
            minute.append(sample)
        if ended:
            self._write(ended)

    def forget(self, kept: set[Key]) -> None:
        """Drop the samples in memory of endpoints that no longer exist."""
        for key in [key for key in self._fine if key not in kept]:
            del self._fine[key]
            self._minute.pop(key, None)

    def latest(self, key: Key) -> Sample | None:
        """The newest sample."""
        fine = self._fine.get(key)
        return fine[-1] if fine else None

    def window(self, key: Key, seconds: float, now: float) -> list[Sample]:
        """The samples of the last `seconds`, oldest first: every sample of the last hour, or minutes."""
        fine = [sample for sample in self._fine.get(key, ()) if sample.at >= now - seconds]
        first = fine[0].at if fine else now
        if first - (now - seconds) <= MINUTE_SECONDS:
            return fine
        try:
            rows = self._database.execute(_SELECT, (*key, now - seconds)).fetchall()
        except sqlite3.DatabaseError:
            return fine
        older = [Sample(**dict(zip(_NAMES, row, strict=True))) for row in rows if row[0] < first]
        return (
            older + fine if seconds <= HOUR_SECONDS else older + [_merged(part) for part in _by_minute(fine)]
        )

    def add_decisions(self, key: Key, lines: Sequence[dict[str, Any]]) -> None:
        """Record the last lines of an endpoint's decision log, oldest first.

        They replace what is recorded since the first of them, because the log changes the time of its last line when
        the same decision comes again. Of the first one's moment the log may have lost a part, so that is only added.
        """
        if not lines:
            return
        places: Counter[float] = Counter()
        rows = []
        for line in lines:
            rows.append((*key, line["at"], places[line["at"]], json.dumps(line)))
            places[line["at"]] += 1
        first = lines[0]["at"] if len(lines) > 1 else -math.inf
        try:
            self._database.execute("BEGIN")
            self._database.execute(
                "DELETE FROM decisions WHERE account = ? AND endpoint = ? AND at > ?", (*key, first)
            )
            self._database.executemany("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("DELETE FROM decisions WHERE at < ?", (lines[-1]["at"] - DAY_SECONDS,))
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def decisions(self, key: Key, since: float) -> list[dict[str, Any]]:
        """The recorded decisions since then, newest first."""
        try:
            rows = self._database.execute(_SELECT_DECISIONS, (*key, since, DECISIONS_MAX)).fetchall()
        except sqlite3.DatabaseError:
            return []
        return [json.loads(line) for (line,) in rows]

    def _write(self, minutes: list[tuple[Key, list[Sample]]]) -> None:
        rows = [(*key, *astuple(_merged(samples))) for key, samples in minutes]
        newest = max((samples[-1].at for _, samples in minutes), default=0.0)
        try:
            self._database.execute("BEGIN")
            self._database.executemany(_INSERT, rows)
            self._database.execute(_DELETE, (newest - DAY_SECONDS,))
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError:  # a full disk: these minutes are lost
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")


def _by_minute(samples: list[Sample]) -> list[list[Sample]]:
    parts: list[list[Sample]] = []
    for sample in samples:
        if parts and parts[-1][0].at // MINUTE_SECONDS == sample.at // MINUTE_SECONDS:
            parts[-1].append(sample)
        else:
            parts.append([sample])
    return parts


def _merged(samples: list[Sample]) -> Sample:
    """One sample for a minute, at its start."""
    values = {}
    for name in _NAMES:
        of = [getattr(sample, name) for sample in samples]
        values[name] = max(of) if name in _PEAKS else sum(of) / len(of)
    values["at"] = samples[0].at
    return Sample(**values)
