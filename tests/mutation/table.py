"""The table of results in `docs/reliability.md`, written from the session files."""

from pathlib import Path


def write_table(root: Path, folder: Path) -> None:
    """Later."""
