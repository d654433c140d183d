"""What the command prints: tables for people, JSON for programs, one sentence for what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoker.errors import Invalid, StokerError

PIPED_WIDTH = 200
"""Columns when nobody looks: nothing is cut for the sake of a window."""


def console() -> Console:
    """Where tables go: the terminal as wide as it is, a pipe without colour."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=PIPED_WIDTH, highlight=False)


def print_json(value: Any) -> None:
    """JSON on standard output; what the output cannot encode, half a surrogate for one, stands in it as an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table, or a sentence when there is nothing in it."""
    table = make_table(columns, rows)
    if table.row_count:
        console().print(table)
    else:
        sys.stderr.write(empty + "\n")


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table; numbers stand to the right."""
    rows = [list(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, not str: a log line with brackets in it is no markup
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else str(value)


def fail(fault: StokerError) -> NoReturn:
    """Say what went wrong and end: 2 if it was asked wrongly, else 1."""
    sys.stderr.write(f"stoker: {fault}\n")
    raise typer.Exit(2 if isinstance(fault, Invalid) else 1) from None
