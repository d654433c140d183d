"""Output of commands that does not fail when the pipe's reader exits or the disk is full."""

import contextlib
import os
import select
import sys

import structlog

log = structlog.get_logger(__name__)


def open_standard_files() -> None:
    """Open /dev/null for each closed standard stream; otherwise the next opened file would get its descriptor."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor


def say(text: str) -> None:
    """Print a line; log a warning if it cannot be written."""
    try:
        print(text, flush=True)
    except OSError as fault:
        drop_output()
        log.warning("output_not_written", error=fault.strerror)


def is_reader_closed() -> bool:
    """Whether stdout is a pipe whose reader has closed it (`| head`)."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def drop_output() -> None:
    """Redirect stdout to /dev/null, also for the interpreter's final flush."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
