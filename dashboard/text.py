"""How values are written on the page. Pure."""

import math
from datetime import UTC, datetime

from markupsafe import Markup

from stoker_wire.parsing.escaping import escape_text

UNKNOWN = "\N{EN DASH}"
"""Stands for a value that is not known."""


def shown(value: object) -> object:
    """Text of other people's machines with control and bidirectional characters written as escapes."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else escape_text(value)


def number(value: float | None) -> str:
    """Three digits: `0`, `0.25`, `12`, `1,540`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """`12 ms`, `3.4 s`, `5 min`, `2 h 10 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if 0 < seconds < 0.0005:
        return "<1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 86_400:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def dollars(value: float | None) -> str:
    """`$0.0012`, `$1.50`, `$1,234`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    sign, value = ("-" if value < 0 else ""), abs(value)
    if value == 0:
        return "$0"
    if value < 0.0001:
        return f"{sign}<$0.0001"
    if value >= 1000:
        return f"{sign}${value:,.0f}"
    return f"{sign}${value:.2f}" if value >= 0.1 else f"{sign}${value:.2g}"


def clock(at: float | None) -> str:
    """`2026-03-01 14:03:22 UTC`."""
    if not at:
        return UNKNOWN
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def moment(at: float | None, now: float) -> str:
    """The time of day in UTC; of another day with its date."""
    if not at:
        return UNKNOWN
    then = datetime.fromtimestamp(at, UTC)
    same_day = then.date() == datetime.fromtimestamp(now, UTC).date()
    return then.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
