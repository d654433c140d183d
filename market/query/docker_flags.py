"""Docker flags, as in templates and `--env`: `-e A=b -p 3000:3000` → the API's env object."""

import re
from collections.abc import Mapping
from typing import Any

from market.query.errors import GrammarError, shown
from market.query.words import Word, split_words

_LONG = {"--env": "-e", "--publish": "-p", "--volume": "-v", "--network": "-n", "--hostname": "-h"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PLAIN_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
"""A name that is surely not a value, so that an error message may repeat it."""
_JOINED = re.compile(r"[,;&]\s*-[epvnh]$")
_ATTACHED = re.compile(r"(-[epvnh])(.+)", re.DOTALL)
_PORT = re.compile(r"-p (?:(?P<host>\d{1,5}):)?(?P<inner>\d{1,5})(?:/(?P<protocol>tcp|udp))?")


def parse_env(text: str) -> dict[str, str]:
    """`-e K=V` → `{"K": "V"}`; `-p 3000:3000` → `{"-p 3000:3000": "1"}`, `-v` and `-n` alike; `-h host` → `{"-h": host}`.

    Other docker flags have no meaning on a marketplace and are ignored. Raises GrammarError.
    """
    env, faults = _read(_outer_unquoted(text))
    if faults:
        raise faults[0]
    return env


def read_env(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """A template's flags as the marketplace parses them, and a warning for each part that it ignores.

    With an open quote, the marketplace splits at blanks. It ignores parts without `NAME=value`. Warnings contain no
    values.
    """
    warnings: list[str] = []
    try:
        words = _outer_unquoted(text)
    except GrammarError as fault:
        warnings.append(f"{fault}; the marketplace reads the quote as a character")
        words = _at_blanks(text)
    env, faults = _read(words)
    return env, (*warnings, *(f"{fault}; the marketplace ignores it" for fault in faults))


def _at_blanks(text: str) -> list[Word]:
    return [Word(found[0].replace("\0", ""), found.start()) for found in re.finditer(r"\S+", text)]


def _read(words: list[Word]) -> tuple[dict[str, str], list[GrammarError]]:
    """The env object of all valid flags, and the errors of the others."""
    env: dict[str, str] = {}
    faults: list[GrammarError] = []
    at = 0
    while at < len(words):
        try:
            flag, value, used = _flag(words, at)
        except GrammarError as fault:
            faults.append(fault)
            break
        at += used
        if value is None:
            continue
        try:
            name, content = _variable(value) if flag == "-e" else _other(flag, value)
        except GrammarError as fault:
            faults.append(fault)
            continue
        env[name] = content
    return env, faults


def _variable(value: Word) -> tuple[str, str]:
    name, equals, content = value.text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        got = shown(name) if equals or _PLAIN_NAME.fullmatch(name) else f"{len(name)} characters without one"
        raise GrammarError(
            f"expected NAME=value after -e, got {got}",
            position=value.position,
            advice="write -e NAME=value",
        )
    if _JOINED.search(content):
        raise GrammarError(
            f"the value of {shown(name)} ends with another flag",
            position=value.position,
            advice="separate flags with blanks: -e A=1 -e B=2; or quote the value",
        )
    return name, content


def _other(flag: str, value: Word) -> tuple[str, str]:
    return ("-h", value.text) if flag == "-h" else (f"{flag} {value.text}", "1")


def published_ports(env: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The container ports published by `-p` keys of an env object, with their protocol."""
    ports: list[tuple[int, str]] = []
    for key in env:
        found = _PORT.fullmatch(key.strip())
        if found and 0 < int(found["inner"]) < 65536:
            ports.append((int(found["inner"]), found["protocol"] or "tcp"))
    return ports


def _outer_unquoted(text: str) -> list[Word]:
    words = split_words(text)
    # A string with an extra pair of quotes (`"'-e A=b'"`) means the flags inside.
    if (
        len(words) == 1
        and words[0].text.startswith("-")
        and " " in words[0].text
        and text.strip()[0] in "\"'"
    ):
        return split_words(words[0].text)
    return words


def _flag(words: list[Word], at: int) -> tuple[str, Word | None, int]:
    """The flag, its value (None for an ignored flag) and the number of words used."""
    word = words[at]
    name, equals, attached = word.text.partition("=")
    if name in _LONG:
        if equals:
            return _LONG[name], Word(attached, word.position + len(name) + 1), 1
        return _LONG[name], _value(words, at), 2
    if word.text in _LONG.values():
        return word.text, _value(words, at), 2
    found = _ATTACHED.fullmatch(word.text)
    if found and not word.text.startswith("--"):
        return found[1], Word(found[2], word.position + 2), 1
    return word.text, None, 1


def _value(words: list[Word], at: int) -> Word:
    if at + 1 == len(words):
        raise GrammarError(
            f"{words[at].text} needs a value", position=words[at].position, advice="for example -e NAME=value"
        )
    return words[at + 1]
