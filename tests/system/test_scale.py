"""Thirty endpoints with ten workers each: nothing is lost, and every urgent event is decided on. Times are `benchmarks.scale`'s."""

from collections import Counter

import pytest

from benchmarks.scale import measure


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_every_urgent_event_is_answered() -> None:
    found = await measure(30, 10, 15.0, settle=5.0)
    assert found.lost == []
    decided = Counter({kind: len(taken) for kind, taken in found.latencies.items()})
    assert decided["wake"] >= 1
    assert decided["grow"] >= 1
    assert decided["error"] >= 1
    assert decided["all"] == 12, "as many as happened"
