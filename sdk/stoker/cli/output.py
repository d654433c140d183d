"""The command's output: tables, JSON, notices and errors.

Control characters of foreign text never reach the terminal.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stoker.errors import Invalid, StokerError
from stoker_wire.parsing.escaping import escape_json, escape_line, escape_text

PIPED_WIDTH = 200
"""Columns of a table that is written to a pipe."""

EXPONENT_FROM = 1e15
"""Numbers from here on are printed with an exponent; smaller ones never."""


class Terminal(Console):
    """A console for foreign text: no markup, no emoji names, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape control characters; rich renders every plain string through this method."""
        return super().render_str(escape_text(text), **options)


def console() -> Terminal:
    """The console for tables: as wide as the terminal; into a pipe without colour."""
    terminal = Terminal()
    return terminal if terminal.is_terminal else Terminal(width=PIPED_WIDTH, highlight=False)


def print_line(sentence: str) -> None:
    """One line on standard output."""
    sys.stdout.write(escape_line(sentence) + "\n")


def print_lines(text: str) -> None:
    """Text of several lines on standard output."""
    if text:
        sys.stdout.write(escape_text(text.removesuffix("\n")) + "\n")


def print_notice(sentence: str) -> None:
    """One line on standard error, beside the command's output."""
    sys.stderr.write(escape_line(sentence) + "\n")


def write_model_text(text: str) -> None:
    """A model's text: unchanged into a pipe, without control characters on a terminal."""
    sys.stdout.write(escape_text(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """JSON on standard output. Characters that the output cannot encode, e.g. half a surrogate pair, become escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    sys.stdout.write(escape_json(text) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table; without rows the notice `empty`."""
    table = make_table(columns, rows)
    if table.row_count:
        console().print(table)
    else:
        print_notice(empty)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table; columns with numbers are aligned to the right."""
    rows = [list(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*in_cells(*row))
    return table


def in_cells(*values: Any) -> list[Text]:
    """Values as table cells of one line each."""
    return [Text(escape_line(cell(value))) for value in values]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return format_number(value)
    return value if isinstance(value, str) else str(value)


def format_number(value: float) -> str:
    """About four significant digits, without an exponent below 1e15."""
    if isinstance(value, int):
        return str(value) if abs(value) < EXPONENT_FROM else f"{float(min(value, 10**300)):.3g}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= EXPONENT_FROM:
        return f"{value:.3g}"
    if size >= 1000:
        return f"{value:.0f}"
    text = f"{value:.2f}" if size >= 1 else f"{value:.4f}"
    return text.rstrip("0").rstrip(".")


def format_time(unix: Any) -> str:
    """Unix seconds as UTC; "-" for anything that is not a time of the years 1 to 9999."""
    if isinstance(unix, bool) or not isinstance(unix, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def format_seconds(seconds: Any) -> str:
    """A duration with a unit: `1.5 s`, `5 min`, `3 h`, `11 d`; "-" for anything else."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{format_number(round(seconds / size))} {unit}"
    return f"{format_number(round(seconds, 1))} s"


def shorten(text: str, characters_max: int) -> str:
    """The text on one line, cut at a word boundary."""
    return textwrap.shorten(text, characters_max, placeholder=" …") if len(text) > characters_max else text


def fail(fault: StokerError) -> NoReturn:
    """Print the error and end the program: exit code 2 for wrong use, else 1."""
    print_notice(f"stoker: {fault}")
    raise typer.Exit(2 if isinstance(fault, Invalid) else 1) from None
