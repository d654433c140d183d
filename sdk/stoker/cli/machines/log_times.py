"""`--since`: the lines of a log from a time on."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

_SPAN = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)


def read_since(given: str, now: float) -> float:
    """Unix seconds of `90s`, `10m`, `2h` or `1d` ago, or of a time such as `2026-03-02 22:20:00` (UTC).

    Raises:
        typer.BadParameter: neither of these.
    """
    if found := _SPAN.fullmatch(given):
        return now - int(found[1]) * _SECONDS[found[2]]
    try:
        return _unix(given)
    except ValueError:
        raise typer.BadParameter(
            f"--since takes 90s, 10m, 2h, 1d or a time in UTC such as 2026-03-02T22:20:00, not {given!r:.40}"
        ) from None


def lines_since(lines: list[str], since: float) -> list[str]:
    """The lines from the first one that is as new as `since`. Lines without a time belong to the one before.

    A log whose lines have no times is returned whole.
    """
    times = [(number, at) for number, line in enumerate(lines) if (at := time_of(line)) is not None]
    if not times:
        return lines
    return lines[next((number for number, at in times if at >= since), len(lines)) :]


def time_of(line: str) -> float | None:
    """Unix seconds of the first time in a line; one without a zone is UTC, as in containers."""
    for found in _TIME.finditer(line):
        try:
            return _unix(found[0])
        except ValueError:  # such as 2026-13-45
            continue
    return None


def _unix(text: str) -> float:
    parsed = datetime.fromisoformat(text.replace(",", "."))
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
