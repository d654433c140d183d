"""What a command prints: a reader that went away, or a full disk, must not keep it from an orderly end."""

import contextlib
import os
import select
import sys

import structlog

log = structlog.get_logger(__name__)


def open_standard_files() -> None:
    """Give each closed one of stdin, stdout and stderr an empty file: the next file that is opened would take its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def say(text: str) -> None:
    """Print a line of a program that runs on, whether it can be printed or not."""
    try:
        print(text, flush=True)
    except OSError as fault:
        drop_output()
        log.warning("output_not_written", error=fault.strerror)


def reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more (`| head`)."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def drop_output() -> None:
    """From now on what is printed is dropped, and so is what the interpreter flushes at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
