"""The table in the docs matches the results of this run. It runs last, after every other test of this folder."""

import os
from pathlib import Path

import pytest

from tests.vast.stage.calls import Record, table

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "vast-compatibility.md"


def test_the_table_in_the_docs_is_what_the_run_has_shown(record: Record) -> None:
    never = [name for name, outcome in record.outcomes.items() if not outcome.selected]
    failed = [name for name, outcome in record.outcomes.items() if outcome.passed < outcome.selected]
    if never:
        pytest.skip(
            f"not all of tests/vast was selected: nothing is known of {', '.join(sorted(never)[:5])} …"
        )
    assert not failed, f"calls with failing tests: {', '.join(sorted(failed))}"
    if os.environ.get("STOKER_WRITE_TABLE"):
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(table(record))
    assert TABLE.read_text() == table(record), "write it anew: STOKER_WRITE_TABLE=1 pytest tests/vast"
