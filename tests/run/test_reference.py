"""The reference pages say what the code says."""

import pytest

from run.commands.reference import PAGES, REFERENCE


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_current(name):
    assert (REFERENCE / name).read_text() == PAGES[name](), "run: python -m run.commands.reference"
