"""The `stoker` command. Exit codes: 0 success, 1 failure, 2 wrong use."""

from __future__ import annotations

import errno
import os
import sys

_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


def main() -> None:
    """Entry point of the console script."""
    try:
        from stoker.cli.app import app  # noqa: PLC0415 - typer and rich are an extra
    except ModuleNotFoundError as fault:
        if fault.name not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write(
            'stoker: the command needs typer and rich; install with: pip install "stoker[cli]"\n'
        )
        sys.exit(2)
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, not after the exit code is chosen
    except BrokenPipeError:  # `stoker logs llm | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as fault:
        if fault.errno not in _WRITE_ERRORS or fault.filename is not None:
            raise
        sys.stderr.write(f"stoker: cannot write the output: {fault.strerror}; free some space for it\n")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # for the interpreter's last flush
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
