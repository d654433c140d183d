"""State that only its owner can read: keys, databases, logs, and the folder that holds them."""

import os
import stat
from pathlib import Path
from typing import IO

from run.errors import CommandError

UMASK = 0o077
"""Of every process of a deployment: what it creates, its owner alone can read."""


def private_folder(path: Path) -> None:
    """Make the folder, or close an existing one to everybody else.

    Raises:
        CommandError: it is shared with others (`/tmp`), or another user's, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = path.stat()
    except OSError as fault:
        raise CommandError(
            f"{path} cannot be made a folder: {fault}; give another state_dir", exit_code=3
        ) from fault
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_ISVTX | stat.S_IWOTH):
        raise CommandError(
            f"{path} is shared with other users of this machine, and would hold keys, logs and databases; "
            "give a state_dir of its own",
            exit_code=3,
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, not even between its creation and a later chmod."""
    with _opened(path, os.O_WRONLY | os.O_TRUNC) as file:
        file.write(text.encode())


def append_private(path: Path) -> IO[bytes]:
    """A file to append to, for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _opened(path, os.O_WRONLY | os.O_APPEND)


def open_private(path: Path) -> IO[str]:
    """A file to read and append to, for its owner only."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "a+")


def _opened(path: Path, flags: int) -> IO[bytes]:
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # it may be older than this rule
    return os.fdopen(descriptor, "wb" if flags & os.O_TRUNC else "ab")
