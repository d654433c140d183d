"""Time in which no sweep ran says nothing about an endpoint's progress."""

from dataclasses import replace

from activities.sweep_watchdog import StalledEndpoint, SweepSpec
from workflows.sweep.sweep import without_absence

STALLED = (StalledEndpoint(name="llm", run_id="r", since=1000.0, fault="no worker takes its workflow task"),)
SWEPT = SweepSpec(every_seconds=300.0, looked_at=1000.0, stalled=STALLED)


def test_a_gap_between_sweeps_does_not_count_as_time_without_progress():
    # sweeps every 300 s; the last one at 1000, then the deployment slept for an hour: 4600 - 1000 - 600 = 3000
    (after,) = without_absence(SWEPT, 4600.0)
    assert after.since == 4000.0


def test_sweeps_in_time_change_nothing():
    assert without_absence(SWEPT, 1600.0) == STALLED


def test_before_the_first_sweep_nothing_is_known_of_an_absence():
    assert without_absence(replace(SWEPT, looked_at=0.0), 1e9) == STALLED
