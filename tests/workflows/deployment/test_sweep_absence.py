"""Time in which no sweep ran says nothing about an endpoint's progress."""

from activities.safety_nets import StalledEndpoint
from workflows.sweep.sweep import without_absence

STALLED = (StalledEndpoint(name="llm", run_id="r", since=1000.0, fault="no worker takes its workflow task"),)


def test_a_gap_between_sweeps_does_not_count_as_time_without_progress():
    # sweeps every 300 s; the last one at 1000, then the deployment slept for an hour: 4600 - 1000 - 600 = 3000
    (after,) = without_absence(STALLED, 1000.0, 4600.0, every_seconds=300.0)
    assert after.since == 4000.0


def test_sweeps_in_time_change_nothing():
    assert without_absence(STALLED, 1000.0, 1600.0, every_seconds=300.0) == STALLED
