"""Escapes control characters in external text before a terminal shows it.

A worker's error, a label or a model's answer may contain escape sequences, which move the cursor, change the title or
write to the clipboard, and direction marks, which reorder the displayed text.
"""

import json
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Joiners inside words and emoji; they have no effect on a terminal."""
_ODD = re.compile(r"[^\x20-\x7e]")
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: control, format (with direction marks), surrogate, private, unassigned, line and paragraph."""


def escape_line(text: str) -> str:
    """The text on one line, with every character that a terminal interprets escaped, e.g. `\\x1b`."""
    return _ODD.sub(lambda match: _escape(match[0]), text)


def escape_text(text: str) -> str:
    """The text with control characters escaped, except for line feeds and tabs."""
    return _ODD.sub(lambda match: match[0] if match[0] in "\n\t" else _escape(match[0]), text)


def escape_json(text: str) -> str:
    """JSON text with control characters in its strings escaped; its value does not change."""
    return _ODD.sub(
        lambda match: match[0] if match[0] == "\n" or not _acts(match[0]) else json.dumps(match[0])[1:-1],
        text,
    )


def _acts(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _ESCAPED


def _escape(character: str) -> str:
    if not _acts(character):
        return character
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if named is not None:
        return named
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
