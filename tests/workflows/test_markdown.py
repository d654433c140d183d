"""What workers and marketplaces say cannot write Markdown into the Temporal UI."""

import re

import pytest

from workflows.markdown import literal


@pytest.mark.parametrize(
    "text",
    [
        "[click](https://evil.example)",
        "![x](https://evil.example/pixel.png)",
        "<img src=x onerror=alert(1)>",
        "&lt;script&gt;",
        "https://evil.example/path",
        "see www.evil.example now",
        "mail me@evil.example",
        "| a | b |",
        "`code` ``` fence",
        "**bold** __bold__ ~~gone~~ *x* _x_",
        "$x^2$",
        "# heading",
        "\\[not escaped\\]",
        "line\n\n# heading\r\n- item",
        "\u202ereversed\x1b[2J",
    ],
)
def test_text_from_outside_is_shown_as_it_is(text: str) -> None:
    shown = literal(text)
    bare = re.sub(r"&#\d+;", "", shown)  # entities are text, whatever they stand for
    assert not re.search(r"[\\`*\[\]<>|&$~@\n\r]|://|www\.|\b_|_\b", bare), shown
    assert shown.isprintable()


def test_plain_words_stay_readable() -> None:
    assert literal("RTX_4090 at 0.31/h (3 of 4), perf: 12.5") == "RTX_4090 at 0.31/h (3 of 4), perf: 12.5"
    assert literal("$1") == "&#36;1"
