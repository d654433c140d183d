"""`docs/security.md` names an existing test for every claim."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def named() -> set[tuple[str, str]]:
    """Every `path::test` on the page; `…` stands for the preceding path."""
    found, path = set(), ""
    for given, test in re.findall(r"`(tests/[\w/]+\.py|…)::(test_\w+)`", PAGE):
        path = path if given == "…" else given
        found.add((path, test))
    return found


def test_every_test_that_the_page_names_is_there():
    missing = [
        f"{path}::{test}"
        for path, test in sorted(named())
        if not re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []
    assert len(named()) > 40


def test_every_footnote_names_a_test_that_is_there():
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    footnotes = re.findall(
        r"`…?_?([a-z][a-z_0-9]{20,})…?`", PAGE.partition("¹ `")[2].partition("## Mechanisms")[0]
    )
    assert len(footnotes) > 15
    assert [name for name in footnotes if name not in sources] == []


def test_every_invariant_of_the_design_has_its_row():
    rows = re.findall(r"^\| (\d+) ", PAGE, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 12)]
