"""Ids as they are written in paths, headers, keys and command lines."""

_DIGITS_MAX = 18
"""All of them fit 63 bits. `int` takes digits of other scripts, and refuses thousands of them with an error of its own."""


def read_id(text: str) -> int | None:
    """The id; None: this is something else, for instance a name."""
    return int(text) if len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit() else None
