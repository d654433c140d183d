"""Times of engines on the controller's clock, sans I/O."""

import pytest

from controller.engine_clocks import AHEAD_SECONDS_MAX, OLD_SECONDS_MAX, on_controller_clock
from stoker_wire.messages import Condition, MetricsBatch, WorkerMetrics
from tests.policy.builders import NOW


def a_batch(sent_at: float, *, worker: dict[str, float] | None = None, **given: float) -> MetricsBatch:
    workers = () if worker is None else (a_worker(**worker),)
    return MetricsBatch(engine_id="e", sequence=1, sent_at=sent_at, workers=workers, **given)


def a_worker(**given: float) -> WorkerMetrics:
    return WorkerMetrics(launch_id="w", instance_id=1, condition=Condition.READY, **given)


@pytest.mark.parametrize("sent_at", [NOW, NOW - 60, NOW + AHEAD_SECONDS_MAX, NOW - OLD_SECONDS_MAX])
def test_plausible_times_stay_as_they_are(sent_at):
    batch = a_batch(
        sent_at,
        worker={"reported_at": sent_at, "suspect_since": sent_at, "started_at": sent_at},
        last_request_at=sent_at,
        listening_since=sent_at,
    )
    assert on_controller_clock(batch, NOW) == batch


@pytest.mark.parametrize(("days", "kept"), [(6.9, 6.9), (7.1, 7.0)])
def test_the_load_history_goes_back_a_week(days, kept):
    assert on_controller_clock(a_batch(NOW - days * 86_400), NOW).sent_at == NOW - kept * 86_400


def test_all_times_of_an_engine_whose_clock_is_ahead_are_moved_back_by_as_much():
    sent_at = NOW + 100
    batch = a_batch(
        sent_at,
        worker={"reported_at": sent_at - 1, "suspect_since": sent_at - 2, "started_at": sent_at - 3},
        last_request_at=sent_at - 4,
        listening_since=sent_at - 5,
    )
    moved = on_controller_clock(batch, NOW)
    assert (moved.sent_at, moved.last_request_at, moved.listening_since) == (NOW, NOW - 4, NOW - 5)
    (corrected,) = moved.workers
    assert (corrected.reported_at, corrected.suspect_since, corrected.started_at) == (
        NOW - 1,
        NOW - 2,
        NOW - 3,
    )


def test_a_time_before_the_load_history_becomes_its_beginning_and_nothing_else_moves():
    batch = a_batch(NOW - OLD_SECONDS_MAX - 1, worker={"reported_at": NOW - 9}, listening_since=NOW - 10)
    moved = on_controller_clock(batch, NOW)
    assert moved.sent_at == NOW - OLD_SECONDS_MAX
    assert moved.workers[0].reported_at == NOW - 9
    assert (moved.listening_since, moved.last_request_at) == (NOW - 10, None)


@pytest.mark.parametrize(
    "given",
    [
        {"last_request_at": NOW + 6},
        {"listening_since": NOW + 6},
        {"worker": {"reported_at": NOW + 6}},
        {"worker": {"suspect_since": NOW + 6}},
        {"worker": {"started_at": NOW + 6}},
    ],
)
def test_a_single_time_in_the_future_becomes_now(given):
    moved = on_controller_clock(a_batch(NOW - 20, **given), NOW)
    assert moved.sent_at == NOW - 20, "its clock is not ahead, so nothing is moved back"
    corrected = moved.workers[0] if moved.workers else None
    times = [moved.last_request_at, moved.listening_since]
    times += [corrected.reported_at, corrected.suspect_since, corrected.started_at] if corrected else []
    assert sorted(time for time in times if time) == [NOW]


def test_times_that_mean_never_stay_zero():
    moved = on_controller_clock(a_batch(NOW + 100, worker={}), NOW)
    (corrected,) = moved.workers
    assert (corrected.reported_at, corrected.suspect_since, corrected.started_at) == (0.0, None, 0.0)
    assert (moved.listening_since, moved.last_request_at) == (0.0, None)


def test_a_time_is_not_moved_before_1970():
    moved = on_controller_clock(a_batch(NOW + 100, worker={"reported_at": 50, "started_at": 50}), NOW)
    assert (moved.workers[0].reported_at, moved.workers[0].started_at) == (0.0, 0.0)
