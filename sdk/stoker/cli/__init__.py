"""The `stoker` command. Exit codes: 0 success, 1 failure, 2 wrong use."""

from __future__ import annotations

import sys


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
        app()
    except BrokenPipeError:  # `stoker logs llm | head`
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
