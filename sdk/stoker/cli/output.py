"""The command's output: tables, JSON, notices and errors.

Control characters of foreign text never reach the terminal.
"""

from __future__ import annotations

import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, NoReturn, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoker.errors import Invalid, StokerError
from stoker_wire.parsing.escaping import escape_json, escape_line, escape_text

PIPED_WIDTH = 100_000
"""Columns of a table that is written to a pipe: each row is one line, which other programs can read."""

COLUMN_WIDTH_MIN = 24
"""Narrower columns are not made for long cells; a table without this space is printed as one block per row."""

EXPONENT_FROM = 1e15
"""Numbers from here on are printed with an exponent; smaller ones never."""


class Terminal(Console):
    """A console for foreign text: no markup, no emoji names, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape control characters; rich renders every plain string through this method."""
        return super().render_str(escape_text(text), **options)


class _WithoutTrailingBlanks:
    """Standard output, without the blanks with which rich fills the last column of a table."""

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        sys.stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


def console() -> Terminal:
    """The console for tables: as wide as the terminal; into a pipe without colour."""
    terminal = Terminal()
    if terminal.is_terminal:
        return terminal
    return Terminal(file=cast("IO[str]", _WithoutTrailingBlanks()), width=PIPED_WIDTH, highlight=False)


@contextmanager
def frames() -> Iterator[Callable[[RenderableType], None]]:
    """Shows each frame in the place of the one before; where that is not possible, one after another."""
    terminal = console()
    if terminal.is_terminal and not terminal.is_dumb_terminal:
        with Live(console=terminal, auto_refresh=False) as screen:
            yield lambda frame: screen.update(frame, refresh=True)
        return

    def append(frame: RenderableType) -> None:
        terminal.print(frame)
        terminal.print()
        sys.stdout.flush()

    yield append


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


def print_result(value: Any, sentence: str, *, as_json: bool) -> None:
    """What a command did: a sentence for people, or JSON for programs."""
    if as_json:
        print_json(value)
    else:
        print_line(sentence)


def print_changes(subject: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    """The fields of `subject` that a command changed, with their new values."""
    changes = ", ".join(f"{name}={value}" for name, value in given.items())
    print_result({"success": True, "changed": given}, f"{subject}: {changes}", as_json=as_json)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table; without rows the notice `empty`."""
    table = make_table(columns, rows)
    if table.rows:
        console().print(table)
    else:
        print_notice(empty)


class FittingTable:
    """A table; where its columns do not fit side by side, one block per row, with a line per column."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.columns = columns
        self.rows = [list(row) for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [in_cells(*row) for row in self.rows]
        widths = [self._width_min(number, cells) for number in range(len(self.columns))]
        if sum(widths) + 2 * (len(widths) - 1) <= options.max_width:
            yield self._side_by_side(cells, widths)
        else:
            yield from self._in_blocks(cells)

    def _width_min(self, number: int, cells: list[list[Text]]) -> int:
        word = max((len(word) for word in self.columns[number].split()), default=1)
        longest = max((row[number].cell_len for row in cells), default=1)
        return max(word, min(longest, COLUMN_WIDTH_MIN))

    def _side_by_side(self, cells: list[list[Text]], widths: list[int]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for number, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            numeric = any(isinstance(row[number], int | float) for row in self.rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold", min_width=width)
        for row in cells:
            table.add_row(*row)
        return table

    def _in_blocks(self, cells: list[list[Text]]) -> Iterator[Text]:
        """Of two columns, the first names the second."""
        if len(self.columns) == 2:
            yield Text(": ".join(self.columns), style="bold")
        for number, row in enumerate(cells):
            if len(row) == 2:
                yield Text.assemble(row[0], ": ", row[1])
                continue
            if number:
                yield Text("")
            for place, (column, value) in enumerate(zip(self.columns, row, strict=True)):
                yield Text.assemble(f"{column}: " if column else "", value, style="" if place else "bold")


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> FittingTable:
    """A table; columns with numbers are aligned to the right."""
    return FittingTable(columns, rows)


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
