"""Escaping of external text for terminals."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_wire.parsing.escaping import escape_json, escape_line, escape_text

ODD = {
    "\x1b[2J": "\\x1b[2J",
    "\x1b]8;;http://evil\x07": "\\x1b]8;;http://evil\\x07",
    "\x9b31m": "\\x9b31m",
    "\x7f\x08\r": "\\x7f\\x08\\r",
    "a\nb\tc": "a\\nb\\tc",
    "\u202eevil\u2066": "\\u202eevil\\u2066",
    "\u2028\u2029\x85": "\\u2028\\u2029\\x85",
    "\u200e\u200f\u061c\ufeff\u00ad": "\\u200e\\u200f\\u061c\\ufeff\\xad",
    "\ud83d": "\\ud83d",
    "\U000e0041\ue000": "\\U000e0041\\ue000",
    "\0": "\\x00",
}


@pytest.mark.parametrize("text", ODD)
def test_what_a_terminal_acts_on_stands_as_its_escape(text: str) -> None:
    assert escape_line(f"<{text}>") == f"<{ODD[text]}>"


@pytest.mark.parametrize("text", ["plain", "Müller 東京 🙂 👩\u200d🚀 e\u0301 [red] $x |", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert escape_line(text) == escape_text(text) == text


def test_lines_keep_line_feeds_and_tabs() -> None:
    assert escape_text("a\n\tb\r\x1b") == "a\n\tb\\r\\x1b"


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    left = {unicodedata.category(c) for c in escape_line(text) if c not in "\u200c\u200d"}
    assert left.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_printable_json_has_the_same_value(value: object) -> None:
    text = escape_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert escape_text(text) == text
