"""Checks before the start: one deployment per state folder, no leftover children, free ports."""

import contextlib
import errno
import fcntl
import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from market.copy_detection import boot_id, locate_folder
from run.errors import CommandError
from run.state_folder.secure_files import open_private, private_folder, write_private

_LOCK = "stokerd.lock"
_UNASSIGNED_PORTS = range(16_000, 32_000)
"""Below the ports of outgoing connections on Linux."""


class StateLock:
    """The lock of a running deployment on its state folder. The kernel releases it when the process exits."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _LOCK
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Acquire the lock and make the folder owner-only.

        Raises:
            CommandError: another process holds the lock, or the folder is shared with other users.
        """
        private_folder(self._path.parent)
        file = open_private(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            if holder.isdecimal() and _has_open(int(holder), self._path):
                who = f"stokerd, pid {holder}; stop it (kill {holder})"
            else:
                who = "a stokerd that this process cannot see (another machine, container or user); stop it there"
            raise CommandError(
                f"{self._path.parent} is in use by {who}, or give another state_dir", exit_code=3
            ) from fault
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Release the lock."""
        if self._file:
            self._file.truncate(0)
            self._file.close()
            self._file = None


class ChildRecord:
    """The record of a deployment's children, with which the next start detects children that survived their parent."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "children.json"

    def write(self, pids: Mapping[str, int]) -> None:
        """Record the running children."""
        children = {name: [pid, _started(pid)] for name, pid in pids.items()}
        record = {"boot": boot_id(), "folder": locate_folder(self._path.parent).folder, "children": children}
        write_private(self._path, json.dumps(record))

    def refuse_stale(self) -> None:
        """Check that no child of an earlier run is still running.

        Pids are valid only if this folder's deployment recorded them during this boot; those in a copied folder belong
        to another deployment.

        Raises:
            CommandError: a child is still running.
        """
        try:
            record = json.loads(self._path.read_text())
            children = {str(name): (int(pid), str(at)) for name, (pid, at) in record["children"].items()}
            ours = (record["boot"], record["folder"]) == (boot_id(), locate_folder(self._path.parent).folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return
        for name, (pid, started) in children.items() if ours else ():
            if _started(pid) == started:
                raise CommandError(
                    f"{name}, pid {pid}, still runs from an earlier start on this state folder; end it: kill {pid}",
                    exit_code=3,
                )


def require_free(ports: Mapping[str, tuple[str, int]]) -> None:
    """Check that every (host, port) is free; the keys are names of settings.

    Raises:
        CommandError: an address is in use or invalid; the message names the setting.
    """
    for name, (host, port) in ports.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as fault:
                if fault.errno == errno.EADDRINUSE:
                    raise CommandError(
                        f"port {port} on {host} is in use; stop what listens there, or change {name}",
                        exit_code=3,
                    ) from fault
                raise CommandError(
                    f"cannot listen on {host}, port {port} ({fault.strerror}); change the host or {name}",
                    exit_code=3,
                ) from fault


def free_port(host: str = "127.0.0.1") -> int:
    """A free port. No outgoing connection takes it before it is used."""
    for port in (*random.sample(_UNASSIGNED_PORTS, 100), 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise CommandError(f"no port is free on {host}")


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this file open. A recorded pid may belong to another machine or container."""
    try:
        target = path.stat()
        return any(
            (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino)
            for found in _files_of(Path(f"/proc/{pid}/fd"))
        )
    except OSError:
        return False


def _files_of(folder: Path) -> Iterator[os.stat_result]:
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            yield entry.stat()


def _started(pid: int) -> str | None:
    """The process's start time in clock ticks, which detects a reused pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
