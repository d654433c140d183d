"""Files and folders that only their owner can read: keys, databases, logs."""

import os
import stat
from pathlib import Path
from typing import IO

from run.errors import CommandError

UMASK = 0o077
"""Umask of every process of a deployment: only the owner can read the files that it creates."""


def private_folder(path: Path) -> None:
    """Make the folder, or make an existing one owner-only.

    Raises:
        CommandError: the folder is shared (`/tmp`), belongs to another user, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
    except OSError as fault:
        raise CommandError(
            f"{path} cannot be created: {fault}; give another state_dir", exit_code=3
        ) from fault
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_ISVTX | stat.S_IWOTH):
        raise CommandError(
            f"{path} is shared with other users of this machine, but would contain keys, logs and databases; "
            "give a separate state_dir",
            exit_code=3,
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its creation on."""
    with _opened(path, os.O_WRONLY | os.O_TRUNC) as file:
        file.write(text.encode())


def append_private(path: Path) -> IO[bytes]:
    """Open an owner-only file for appending."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _opened(path, os.O_WRONLY | os.O_APPEND)


def open_private(path: Path) -> IO[str]:
    """Open an owner-only file for reading and appending."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "a+")


def _opened(path: Path, flags: int) -> IO[bytes]:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # the file may have had other permissions
    return os.fdopen(descriptor, "wb" if flags & os.O_TRUNC else "ab")
