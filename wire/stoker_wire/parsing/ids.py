"""Ids in paths, headers, keys and command lines."""

from stoker_wire.parsing.numbers import read_whole


def read_id(text: str) -> int | None:
    """The id; None if the text is not an id, e.g. a name."""
    return read_whole(text)
