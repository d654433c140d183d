"""Splits text into shell-like words with positions: blanks separate, quotes group, a backslash escapes."""

from dataclasses import dataclass

from market.query.errors import GrammarError


@dataclass(frozen=True, slots=True)
class Word:
    """One word without its quotes, and the position at which it began."""

    text: str
    position: int


def split_words(text: str) -> list[Word]:
    """The words of a command line. Raises GrammarError for an open quote or a trailing backslash."""
    if "\0" in text:
        raise GrammarError("a NUL character is not allowed", position=text.index("\0"))
    words: list[Word] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        word, at = _word(text, at)
        words.append(word)
    return words


def _word(text: str, start: int) -> tuple[Word, int]:
    pieces: list[str] = []
    at = start
    while at < len(text) and not text[at].isspace():
        char = text[at]
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise _open_quote(at)
            pieces.append(text[at + 1 : end])
            at = end + 1
        elif char == '"':
            piece, at = _double_quoted(text, at)
            pieces.append(piece)
        elif char == "\\":
            if at + 1 == len(text):
                raise GrammarError("a backslash at the end escapes nothing", position=at)
            pieces.append(text[at + 1])
            at += 2
        else:
            pieces.append(char)
            at += 1
    return Word("".join(pieces), start), at


def _double_quoted(text: str, start: int) -> tuple[str, int]:
    pieces: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(pieces), at + 1
        if char == "\\" and at + 1 < len(text) and text[at + 1] in '"\\$`':
            pieces.append(text[at + 1])
            at += 2
        else:
            pieces.append(char)
            at += 1
    raise _open_quote(start)


def _open_quote(position: int) -> GrammarError:
    return GrammarError("this quote is never closed", position=position, advice="add the closing quote")
