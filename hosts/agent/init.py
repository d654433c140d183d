"""The first process of an instance on systems without writable control groups: `python -I init.py COMMAND…`.

It runs the command and exits with its status. As a child subreaper it becomes the parent of orphaned descendants, so
detached processes remain its descendants. It kills them before it exits.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_SECONDS = 0.01


def main(command: list[str]) -> int:
    """Run the command, kill the processes it left, and return its exit status (negative for a signal)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.stderr.write("cannot become a child subreaper\n")
        return 126
    ignored = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    first = os.fork()
    if first == 0:
        try:
            os.execvp(command[0], command)  # noqa: S606 - running the given command is its purpose
        except OSError as fault:
            os.write(2, f"cannot run {command[0]}: {fault.strerror}\n".encode())
            os._exit(127)
    # The marketplace signals every process of the instance; this one must outlive the others.
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    status = 0
    while True:
        pid, ended = os.waitpid(-1, 0)
        if pid == first:
            status = os.waitstatus_to_exitcode(ended)
            break
    _kill_descendants()
    return status


def _kill_descendants() -> None:
    """Kill children until none is left. The children of a killed process become children of this one."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, _PAUSE_SECONDS)


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
