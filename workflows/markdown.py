"""Escapes external text for the Markdown of the Temporal UI."""

import functools
import re

from stoker_wire.parsing.escaping import escape_line

_ACTIVE = re.compile(
    r"[\\`*\[\]<>|&$~@#!]"  # code, emphasis, links, images, HTML, tables, entities, formulas, addresses, headings
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis, except within a word
    r"|:(?=//)|(?<=[wW]{3})\."  # addresses that become links by themselves
)


@functools.lru_cache(maxsize=4096)
def literal(text: str) -> str:
    """The text on one line, shown as it is: markup characters of Markdown and HTML become numeric entities.

    Each publication shows mostly the lines of the last one, so results are kept.
    """
    return _ACTIVE.sub(lambda match: f"&#{ord(match[0])};", escape_line(text))
