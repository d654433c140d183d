"""Reads processes from /proc: their state, start time and the instance that they belong to."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TAG_VARIABLE = "STOKER_HOST_INSTANCE"
"""Environment variable that every process of an instance inherits, also after it left its process group."""


@dataclass(frozen=True, slots=True)
class Stat:
    """Fields of /proc/<pid>/stat."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    started: int
    """Clock ticks since boot."""

    @property
    def alive(self) -> bool:
        """Whether the process runs; a zombie does not."""
        return self.state not in "ZX"


def stat(pid: int) -> Stat | None:
    """The process's current state; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name is in parentheses and may itself contain parentheses and blanks.
    after = text.rpartition(")")[2].split()
    if len(after) < 20:
        return None
    return Stat(pid, after[0], int(after[1]), int(after[3]), int(after[11]) + int(after[12]), int(after[19]))


@cache
def boot_id() -> str:
    """The id of this boot of the machine. Process start times count from the boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pids() -> Iterator[int]:
    """The ids of all processes."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def tag_of(pid: int) -> str | None:
    """The instance tag in the process's initial environment."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{TAG_VARIABLE}=".encode()
    for entry in environ.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def members(tag: str, session: int) -> list[int]:
    """Running processes of an instance: those in its session, those with its tag, and their descendants."""
    return members_of({tag: session})[tag]


def members_of(sessions: Mapping[str, int]) -> dict[str, list[int]]:
    """`members` for several instances (tag to session) in one pass over /proc."""
    found: dict[str, list[int]] = {tag: [] for tag in sessions}
    tags = {session: tag for tag, session in sessions.items()}
    seen = {pid: now for pid in pids() if (now := stat(pid)) is not None}
    own = {pid: tags.get(now.session) or tag_of(pid) for pid, now in seen.items()}
    for pid, now in seen.items():
        if not now.alive or pid == os.getpid():
            continue
        above: int | None = pid
        # A process that cleared its environment and left its session still has a parent.
        while above in seen and above != os.getpid() and own[above] not in found:
            above = seen[above].parent
        tag = own.get(above) if above in seen and above != os.getpid() else None
        if tag in found:
            found[tag].append(pid)
    return found


def descendants(*roots: int) -> list[int]:
    """The running processes among `roots` and their descendants, by parent process id."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid in pids():
        now = stat(pid)
        if now is not None:
            children.setdefault(now.parent, []).append(pid)
            if now.alive:
                alive.add(pid)
    found, ahead = [], list(roots)
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.pop(pid, [])
    return [pid for pid in found if pid in alive]


def tagged(prefix: str) -> dict[int, str]:
    """Running processes whose tag starts with the prefix, with their tags."""
    found = {}
    for pid in pids():
        tag = tag_of(pid)
        if tag is not None and tag.startswith(prefix):
            now = stat(pid)
            if now is not None and now.alive and pid != os.getpid():
                found[pid] = tag
    return found


def send(pids_to: list[int], number: signal.Signals) -> None:
    """Send a signal to each process; processes that have exited are ignored."""
    for pid in pids_to:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
