"""Ids as they are written in paths, headers, keys and command lines."""

from stoker_wire.parsing.numbers import read_whole


def read_id(text: str) -> int | None:
    """The id; None: this is something else, for instance a name."""
    return read_whole(text)
