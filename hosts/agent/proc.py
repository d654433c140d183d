"""What /proc says about processes: who lives, since when, and who belongs to an instance."""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARK = "STOKER_HOST_INSTANCE"
"""Environment variable that every process of an instance inherits: it is found even after it left its group."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The lines of /proc/<pid>/stat that matter here."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    started: int
    """Clock ticks since boot."""

    @property
    def alive(self) -> bool:
        """A zombie is dead: it only waits to be counted."""
        return self.state not in "ZX"


def stat(pid: int) -> Stat | None:
    """The process as it is now, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command stands in brackets and may itself hold brackets and blanks.
    after = text.rpartition(")")[2].split()
    if len(after) < 20:
        return None
    return Stat(pid, after[0], int(after[1]), int(after[3]), int(after[11]) + int(after[12]), int(after[19]))


@cache
def boot_id() -> str:
    """Names this boot of the machine: start times count from it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pids() -> Iterator[int]:
    """Every process of this machine."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def mark_of(pid: int) -> str | None:
    """The instance mark in the environment that the process began with."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for entry in environ.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def members(mark: str, session: int) -> list[int]:
    """Living processes of an instance: its session, those that carry its mark, and all that descend from either."""
    return members_of({mark: session})[mark]


def members_of(sessions: Mapping[str, int]) -> dict[str, list[int]]:
    """The same for several instances, mark → session, in one pass over /proc."""
    found: dict[str, list[int]] = {mark: [] for mark in sessions}
    marks = {session: mark for mark, session in sessions.items()}
    seen = {pid: now for pid in pids() if (now := stat(pid)) is not None}
    own = {pid: marks.get(now.session) or mark_of(pid) for pid, now in seen.items()}
    for pid, now in seen.items():
        if not now.alive or pid == os.getpid():
            continue
        above: int | None = pid
        # A process that cleared its environment and left its session still has its parent.
        while above in seen and above != os.getpid() and own[above] not in found:
            above = seen[above].parent
        mark = own.get(above) if above in seen and above != os.getpid() else None
        if mark in found:
            found[mark].append(pid)
    return found


def descendants(*roots: int) -> list[int]:
    """The living processes among `roots` and everything that descends from them, as the kernel's parent links say."""
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


def marked(prefix: str) -> dict[int, str]:
    """Living processes whose mark starts with the prefix."""
    found = {}
    for pid in pids():
        mark = mark_of(pid)
        if mark is not None and mark.startswith(prefix):
            now = stat(pid)
            if now is not None and now.alive and pid != os.getpid():
                found[pid] = mark
    return found


def send(pids_to: list[int], number: signal.Signals) -> None:
    """Signal each process; one that is gone already is no fault."""
    for pid in pids_to:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
