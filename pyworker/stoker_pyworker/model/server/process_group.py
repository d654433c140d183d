"""Finds and ends the processes of a model server, whatever sessions they have made for themselves."""

import contextlib
import os
import signal
from pathlib import Path

MARK = "STOKER_MODEL_SERVER_OF"
"""Variable in the environment of a model server and of its descendants: the worker that started it."""


def own_mark() -> str:
    """The mark of this process: its id, start time and namespace, so that a reused id is another mark."""
    return f"{os.getpid()}-{_start_time(os.getpid())}-{_namespace()}"


def marked(mark: str, session: int = 0) -> list[int]:
    """The processes that carry the mark, and those of their sessions and of this one."""
    return _with_sessions([pid for pid, found in _marks() if found == mark], session)


def abandoned() -> list[int]:
    """Processes of model servers whose worker has ended without stopping them.

    A worker outside of containers sees their processes, but ids of their workers mean nothing to it.
    """
    own = _namespace()
    return _with_sessions(
        [pid for pid, mark in _marks() if mark.rpartition("-")[2] == own and not _alive(mark)]
    )


def kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def oom_kills() -> int:
    """How many processes of this control group the kernel has killed for memory; 0 if unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def prefer_for_oom_kill(pid: int) -> None:
    """Let the kernel kill the model server before the worker, which reports why."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("500")


def _with_sessions(found: list[int], session: int = 0) -> list[int]:
    """These processes and the others of the sessions that they lead or that have lost their leader.

    A process that sets its title overwrites the variables that `/proc` shows. vLLM's do that, and those that compute
    outlive the one that serves HTTP, with the GPU's memory.
    """
    sessions = {pid: int(fields[3]) for pid in _pids() if (fields := _stat(pid)) and fields[0] != b"Z"}
    led = {sessions.get(pid, 0) for pid in found}
    led = {each for each in led if each in found or each not in sessions} | {session}
    led -= {0, os.getsid(0)}
    return [pid for pid, of in sessions.items() if pid in found or of in led]


def _pids() -> list[int]:
    entries = os.scandir("/proc") if Path("/proc").is_dir() else ()
    return [int(entry.name) for entry in entries if entry.name.isdigit()]


def _stat(pid: int) -> list[bytes]:
    """The fields of `/proc/<pid>/stat` from the process's state on; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _marks() -> list[tuple[int, str]]:
    found = []
    wanted = f"{MARK}=".encode()
    for pid in _pids():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for each in variables:
            if each.startswith(wanted):
                found.append((pid, each[len(wanted) :].decode("utf-8", "replace")))
                break
    return found


def _alive(mark: str) -> bool:
    pid, started = mark.split("-")[:2]
    return not pid.isdigit() or _start_time(int(pid)) == started


def _namespace() -> str:
    """Id of the process namespace; empty if unknown."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19].decode() if len(fields) > 19 else "0"
