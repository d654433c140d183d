"""Ids as text."""

import pytest

from stoker_wire.parsing.ids import read_id


def test_digits_are_an_id() -> None:
    assert (read_id("17"), read_id("0"), read_id("9" * 18)) == (17, 0, int("9" * 18))


@pytest.mark.parametrize("text", ["", "llm", "-1", "1.0", " 1", "²", "٣", "9" * 19, "9" * 5000])
def test_other_text_is_none_and_not_an_error(text: str) -> None:
    assert read_id(text) is None
