"""Goldens: plans as text, compared with the committed file; `UPDATE_GOLDENS=1 pytest tests/policy` rewrites them."""

import os
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture
def golden(request):
    """Compares a text with the golden named after the test."""

    def compare(text: str) -> None:
        path = GOLDENS / f"{request.node.originalname.removeprefix('test_')}.txt"
        if os.environ.get("UPDATE_GOLDENS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden {path.name}: write it with UPDATE_GOLDENS=1"
        assert text == path.read_text()

    return compare
