"""Parses numbers in text: headers, queries, paths, environment variables and JSON strings.

`int` and `float` also accept `1_0`, ` 1`, `+1`, `inf`, `nan` and digits of other scripts. Parsers that disagree about a
number are a security risk, so every part of stoker uses these functions.
"""

import math
import re

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_CHARS_MAX = 64
_DIGITS_MAX = 18
"""A whole number of this length fits into 63 bits."""


def read_number(text: str) -> float | None:
    """The finite number in JSON's decimal notation; None if the text is not one."""
    if len(text) > _CHARS_MAX or _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def read_whole(text: str) -> int | None:
    """The whole number of at least 0, in ASCII digits; None if the text is not one."""
    return int(text) if len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit() else None


def finite(value: object) -> float | None:
    """The finite number in a JSON value, given as number or text; None if the value is not one."""
    if isinstance(value, str):
        return read_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
