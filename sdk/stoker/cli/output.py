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
from stoker_wire.parsing.escaping import escape_json, escape_line, escape_text

PIPED_WIDTH = 200
"""Columns when nobody looks: nothing is cut for the sake of a window."""


class Terminal(Console):
    """A console for text from outside: no markup, no emoji names, and no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed comes through here."""
        return super().render_str(escape_text(text), **options)


def console() -> Terminal:
    """Where tables go: the terminal as wide as it is, a pipe without colour."""
    plain = Terminal()
    return plain if plain.is_terminal else Terminal(width=PIPED_WIDTH, highlight=False)


def say(sentence: str) -> None:
    """One line on standard output."""
    sys.stdout.write(escape_line(sentence) + "\n")


def tell(sentence: str) -> None:
    """One line about the command itself, on standard error."""
    sys.stderr.write(escape_line(sentence) + "\n")


def say_lines(text: str) -> None:
    """Text of several lines on standard output."""
    if text:
        sys.stdout.write(escape_text(text.removesuffix("\n")) + "\n")


def pass_on(text: str) -> None:
    """What a model wrote, as it is; harmless where a person's terminal shows it."""
    sys.stdout.write(escape_text(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def in_cells(*values: Any) -> list[Text]:
    """Values as a table shows them, each on one line."""
    return [Text(escape_line(cell(value))) for value in values]


def print_json(value: Any) -> None:
    """JSON on standard output; what the output cannot encode, half a surrogate for one, stands in it as an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    sys.stdout.write(escape_json(text) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table, or a sentence when there is nothing in it."""
    table = make_table(columns, rows)
    if table.row_count:
        console().print(table)
    else:
        tell(empty)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table; numbers stand to the right."""
    rows = [list(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*in_cells(*row))
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
    tell(f"stoker: {fault}")
    raise typer.Exit(2 if isinstance(fault, Invalid) else 1) from None
