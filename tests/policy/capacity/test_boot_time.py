"""Expected boot and start times."""

import pytest

from policy.capacity import boot_time
from policy.state.worker import KindRecord, MachineStats
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, worker

FAST = KindRecord(workergroup_id=1, kind="1x fast", boots=1, boot_seconds=100.0, starts=1, start_seconds=10.0)
SLOW = KindRecord(workergroup_id=1, kind="1x slow", boots=2, boot_seconds=300.0, starts=2, start_seconds=40.0)
NEVER = KindRecord(workergroup_id=1, kind="1x never", boot_seconds=9.0, start_seconds=9.0)
LEARNED = MachineStats(kinds=(FAST, SLOW, NEVER))


def booting(kind: str, *, loaded: bool = False, **given: object):
    state = S.STARTING if loaded else S.LOADING
    return worker(
        "w", state, kind=kind, loaded_once=loaded, **{"since": NOW - 5, "launched_at": NOW - 60} | given
    )


@pytest.mark.parametrize(
    ("kind", "loaded", "seconds"),
    [
        ("1x fast", False, 100.0),
        ("1x fast", True, 10.0),
        ("1x never", False, 200.0),  # the mean of all kinds
        ("1x never", True, 25.0),
        ("1x other", False, 200.0),
    ],
)
def test_a_kind_takes_as_long_as_before_and_an_unknown_one_as_long_as_the_mean(kind, loaded, seconds):
    about = booting(kind, loaded=loaded)
    assert boot_time.expected_seconds(about, LEARNED, DEFAULT_TUNING) == seconds
    began = NOW - 5 if loaded else NOW - 60
    assert boot_time.ready_at(about, LEARNED, DEFAULT_TUNING) == began + seconds
    overdue = began + DEFAULT_TUNING.overdue_factor * seconds
    assert boot_time.overdue_at(about, LEARNED, DEFAULT_TUNING) == overdue


def test_without_measurements_the_defaults_count():
    assert boot_time.boot_seconds(MachineStats(), DEFAULT_TUNING) == DEFAULT_TUNING.boot_seconds_default
    assert boot_time.start_seconds(MachineStats(), DEFAULT_TUNING) == DEFAULT_TUNING.start_seconds_default
    assert (
        boot_time.start_seconds(MachineStats(kinds=(NEVER,)), DEFAULT_TUNING)
        == DEFAULT_TUNING.start_seconds_default
    )


@pytest.mark.parametrize(("ago", "slower"), [(89.0, True), (90.0, False), (91.0, False)])
def test_a_first_boot_is_slower_than_a_start_if_more_than_the_fastest_start_is_left(ago, slower):
    about = booting("1x fast", launched_at=NOW - ago)  # ready 100 s after its launch; a start takes 10 s
    assert boot_time.is_slower_than_start(about, LEARNED, NOW, DEFAULT_TUNING) is slower
    assert not boot_time.is_slower_than_start(booting("1x slow", loaded=True), LEARNED, NOW, DEFAULT_TUNING)
