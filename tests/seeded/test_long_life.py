"""Thirty days of one endpoint: bounded Temporal actions, a small state, and an exact ledger."""

import pytest

from benchmarks.long_life import CASES, DAYS, STATE_BYTES_MAX, life, table
from benchmarks.temporal_actions import Case


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_month_stays_within_its_bounds(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    lived = life(case, DAYS)
    with capsys.disabled():
        print("\n" + table([lived]))
    assert lived.busiest <= case.target
    assert max(lived.handed_over, default=0) <= STATE_BYTES_MAX
    assert lived.ready == case.workers
    assert lived.ledger_dollars == pytest.approx(lived.market_dollars, abs=0.01 + 0.02 * len(lived.actions))
