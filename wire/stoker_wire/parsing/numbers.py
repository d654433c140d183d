"""Numbers that come as text: in headers, queries, paths, environment variables and JSON strings.

`int` and `float` also read `1_0`, ` 1`, `+1`, `inf`, `nan` and digits of other scripts. Two readers that disagree about
a number are a security fault, so every part of stoker reads text with these functions.
"""

import math
import re

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_CHARS_MAX = 64
_DIGITS_MAX = 18
"""A whole number of this length fits 63 bits. `int` refuses thousands of digits with an error of its own."""


def read_number(text: str) -> float | None:
    """The finite number in decimal notation as JSON writes it; None: the text is something else."""
    if len(text) > _CHARS_MAX or _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def read_whole(text: str) -> int | None:
    """The whole number from 0 up, in ASCII digits; None: the text is something else."""
    return int(text) if len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit() else None


def finite(value: object) -> float | None:
    """The finite number in a JSON value, which may be a number or its text; None: the value is something else."""
    if isinstance(value, str):
        return read_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
