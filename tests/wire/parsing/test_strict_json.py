"""Parsing of external JSON: one value, or one error with a message."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_wire.parsing.strict_json import DEPTH_MAX, NotJson, parse_answer, parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_what_json_can_hold_is_read_as_python_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == parse_json(memoryview(text.encode())) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"[1] x", "Extra data"),
        (b"NaN", "NaN is not a JSON value"),
        (b"[-Infinity]", "-Infinity is not a JSON value"),
        (b"[1e999]", "1e999 is too large"),
        (b"-1e999", "too large"),
        (b"1" * 5000, "too many digits"),
        (b'"\\ud800"', "must come in pairs"),
        (b'{"\\uDFFF": 1}', "must come in pairs"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "nested too deeply: over 100"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply: over 100"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply: over 100"),
        ("[" * 100_000, "nested too deeply: over 100"),
    ],
)
def test_anything_else_is_one_error_with_a_sentence(text: str | bytes, said: str) -> None:
    with pytest.raises(NotJson) as raised:
        parse_json(text)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "text", ["", "{", "1" * 5000, "[" * 1000 + "]" * 1000, "[" * 100_000, b"\xff", b"\xff\xfe[\x00"]
)
def test_a_peers_answer_that_is_not_json_raises_not_json(text: str | bytes) -> None:
    with pytest.raises(NotJson):
        parse_answer(text)


def test_what_models_write_is_read() -> None:
    assert parse_answer('{"logprob": -Infinity, "text": "\\ud83d"}') == {
        "logprob": -math.inf,
        "text": "\ud83d",
    }
    assert parse_answer(b"\xef\xbb\xbf[1]") == [1]


def test_the_deepest_value_and_a_pair_of_escapes_are_read() -> None:
    assert parse_json("[" * DEPTH_MAX + "]" * DEPTH_MAX)
    assert parse_json("[" + "[1]," * 5000 + "2]")[-1] == 2
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
