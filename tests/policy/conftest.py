"""Goldens: plans as text, compared with the committed file; `UPDATE_GOLDENS=1 pytest tests/policy` rewrites them."""

import os
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"


def compare(text: str, name: str) -> None:
    """Compares a text with the golden of this name, or writes it if that is asked for."""
    path = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no golden {path.name}: write it with UPDATE_GOLDENS=1"
    assert text == path.read_text()


@pytest.fixture
def golden(request):
    """Compares a text with the golden named after the test."""
    return lambda text: compare(text, request.node.originalname.removeprefix("test_"))
