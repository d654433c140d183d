"""The host's database: one SQLite file for its owner only, and a lock against a second marketplace."""

import contextlib
import fcntl
import json
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import structlog

from hosts.catalog.record import InstanceRecord
from market.copy_detection import locate_folder

log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS instances (id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (id INTEGER PRIMARY KEY, charge TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS templates (id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT UNIQUE NOT NULL, body TEXT NOT NULL);
"""

FIRST_INSTANCE_ID = 10001


class StateInUse(RuntimeError):
    """Another marketplace uses this state directory."""


class StateDamaged(RuntimeError):
    """The database in this state directory cannot be used."""


class Store:
    """Opens and locks a state directory. Raises StateInUse or StateDamaged."""

    def __init__(self, state_dir: Path) -> None:
        self.dir = state_dir.absolute()
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.dir.chmod(0o700)
        self._lock = _lock(self.dir)
        self._path = self.dir / "market.sqlite"
        try:
            self._open()
        except sqlite3.Error as fault:
            os.close(self._lock)
            raise self._damaged(fault) from fault

    def _open(self) -> None:
        # The database holds keys, so only its owner may read it.
        old = os.umask(0o077)
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None)
        finally:
            os.umask(old)
        self._db.execute("PRAGMA journal_mode=WAL")
        # With NORMAL, only a power failure can lose the last commits; a killed process loses nothing.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        self._reset_if_copied()
        self.uid = self._fact("uid", lambda: secrets.token_hex(4))
        """Prefix of the tags and control groups of this marketplace's processes."""

    def _reset_if_copied(self) -> None:
        """Drop the instances if the folder is a copy, and choose a new uid.

        The instances in a copy, their processes and their tokens, belong to the original folder.
        """
        here = locate_folder(self.dir).folder
        if self._fact("folder", lambda: here) == here:
            return
        (count,) = self._db.execute("SELECT count(*) FROM instances").fetchone()
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM instances")
        self._db.execute("DELETE FROM facts WHERE name = 'uid'")
        self._db.execute("UPDATE facts SET value = ? WHERE name = 'folder'", (here,))
        self._db.execute("COMMIT")
        log.warning("state_folder_is_a_copy", folder=str(self.dir), instances_dropped=count)

    def _damaged(self, fault: Exception) -> StateDamaged:
        return StateDamaged(
            f"{self._path} cannot be used ({str(fault).splitlines()[0]}); restore it from a backup, or move it away to "
            "start without instances"
        )

    def _fact(self, name: str, make: Any) -> str:
        self._db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, make()))
        (value,) = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(value)

    def next_id(self) -> int:
        """A new instance id. Ids are never reused."""
        cursor = self._db.execute("INSERT INTO instances (record) VALUES ('')")
        instance_id = int(cursor.lastrowid or 0)
        if instance_id < FIRST_INSTANCE_ID:
            self._db.execute("DELETE FROM instances WHERE id = ?", (instance_id,))
            self._db.execute("INSERT INTO instances (id, record) VALUES (?, '')", (FIRST_INSTANCE_ID,))
            return FIRST_INSTANCE_ID
        return instance_id

    def save(self, record: InstanceRecord) -> None:
        """Store the record."""
        self._db.execute(
            "INSERT INTO instances (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (record.id, record.model_dump_json()),
        )

    def archive(self, record: InstanceRecord, now: float) -> None:
        """Delete the instance and keep its charge."""
        self._db.execute("BEGIN")
        self._db.execute(
            "INSERT OR REPLACE INTO charges VALUES (?, ?)", (record.id, json.dumps(record.charge(now)))
        )
        self._db.execute("DELETE FROM instances WHERE id = ?", (record.id,))
        self._db.execute("COMMIT")

    def records(self) -> list[InstanceRecord]:
        """All instances, oldest first."""
        self._db.execute("DELETE FROM instances WHERE record = ''")
        rows = self._db.execute("SELECT record FROM instances ORDER BY id").fetchall()
        try:
            return [InstanceRecord.model_validate_json(row) for (row,) in rows]
        except ValueError as fault:
            raise self._damaged(fault) from fault

    def charges(self) -> list[dict[str, Any]]:
        """The charges of deleted instances."""
        rows = self._db.execute("SELECT charge FROM charges ORDER BY id").fetchall()
        return [json.loads(row) for (row,) in rows]

    def put_template(self, hash_id: str, body: dict[str, Any]) -> int:
        """Store a template and return its id, which is the same for the same hash."""
        self._db.execute(
            "INSERT INTO templates (hash, body) VALUES (?, ?) ON CONFLICT (hash) DO UPDATE SET body = excluded.body",
            (hash_id, json.dumps(body)),
        )
        (template_id,) = self._db.execute("SELECT id FROM templates WHERE hash = ?", (hash_id,)).fetchone()
        return int(template_id)

    def drop_template(self, template_id: int) -> None:
        """Delete a template; instances made from it stay unchanged."""
        self._db.execute("DELETE FROM templates WHERE id = ?", (template_id,))

    def templates(self) -> list[tuple[int, str, dict[str, Any]]]:
        """`(id, hash, body)` of every template, oldest first."""
        rows = self._db.execute("SELECT id, hash, body FROM templates ORDER BY id").fetchall()
        return [(int(number), str(hash_id), json.loads(body)) for number, hash_id, body in rows]

    def close(self) -> None:
        """Close the database and release the lock."""
        self._db.close()
        os.close(self._lock)


def _lock(state_dir: Path) -> int:
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StateInUse(
            f"another host marketplace (pid {holder}) uses {state_dir}: stop it, or choose another state_dir"
        ) from None
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
