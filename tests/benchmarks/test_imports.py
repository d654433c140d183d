"""Benchmarks run by hand only, so a renamed function would be noticed late."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = frozenset({"benchmarks.pyworker.official", "benchmarks.pyworker.ours"})
"""They run in an environment of their own, on an instance."""
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "benchmarks").rglob("*.py")
    if "odd_model" not in file.parts
)


@pytest.mark.parametrize("name", sorted({*MODULES} - PROGRAMS))
def test_every_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(name)
