"""Late reports of ended processes are ignored; machines that run after a stop are stopped again."""

import pytest

from policy.capacity.budget import counted_dollars_per_hour
from policy.state.apply_operation import apply_operation
from policy.state.incarnation import Process
from policy.state.lifecycle import advance
from policy.state.plan import Activate, Destroy, Reboot, Stop, Update
from policy.state.worker import MachineStats, Worker
from policy.state.worker_events import fold_metrics, fold_operation_result
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, brief, decide, draining, endpoint, report, see, steady, worker


def fold_report(about: Worker, now: float | None = None, *, age: float = 3600.0, **fields):
    """A report of process `incarnation`, which is `age` seconds old when it arrives at the engine."""
    usual = {"incarnation": "a", "perf": 100.0, "reported_at": NOW}
    fields = usual | fields
    started_at = fields["reported_at"] - age if age else 0.0
    at = fields["reported_at"] if now is None else now
    return fold_metrics(about, report(started_at=started_at, **fields), now=at, learned=MachineStats())


def ready(**given) -> Worker:
    """A worker with process `a`, ready for a long time."""
    process = Process(id="a", started_at=NOW - 3600)
    return worker(
        "w", **{"process": process, "since": NOW - 3000, "reported_at": NOW - 5, "loaded_once": True} | given
    )


def official(**given) -> Worker:
    return ready(process=Process(id="loadtime-12.345678"), official=True, **given)


def accepted(about: Worker, operation: str, at: float) -> Worker:
    return fold_operation_result(about, operation, now=at, learned=MachineStats(), ok=True).worker


def rebooted(about: Worker, at: float = NOW) -> Worker:
    """The worker after a reboot was ordered at `at` and accepted a second later."""
    return accepted(apply_operation(about, Reboot(launch_id="w", reason="r"), at), "reboot", at + 1)


LATE_REPORTS = [
    {"condition": "error", "error": "the model server ended"},
    {"condition": "ready"},
    {"condition": "loading"},
]


@pytest.mark.parametrize("fields", LATE_REPORTS)
@pytest.mark.parametrize("late", [0.02, 0.2, 5.0, 60.0])
def test_a_late_report_of_an_ended_process_is_ignored(fields, late):
    reboots = rebooted(ready())
    folded = fold_report(
        reboots, reported_at=NOW + 1 + late, age=3600 + late, in_flight=3, load=9.0, **fields
    ).worker
    assert (folded.state, folded.error, folded.in_flight, folded.load) == (S.REBOOTING, "", 0, 0.0)
    assert folded.reported_at == NOW - 5
    # The reboot is still running: no worker is released and no host is blocked.
    assert brief(decide(see(folded, now=NOW + 2 + late, listed_at=NOW + 1 + late, load=steady(0)))) == []
    assert fold_report(folded, incarnation="b", age=1.0, reported_at=NOW + 62).worker.state is S.READY


def test_an_error_of_the_new_process_is_recorded():
    reboots = rebooted(ready())
    broke = fold_report(
        reboots, incarnation="b", condition="error", error="no GPU", age=2.0, reported_at=NOW + 4
    ).worker
    assert (broke.state, broke.error, broke.reboots) == (S.ERROR, "no GPU", 1)


def test_an_unknown_process_from_before_the_reboot_is_recognised_by_its_age():
    # "c" restarted by itself 5 s before the reboot; its first report arrives after the reboot.
    reboots = rebooted(ready())
    late = fold_report(reboots, incarnation="c", condition="error", error="x", age=6.5, reported_at=NOW + 1.5)
    assert late.worker.state is S.REBOOTING
    new = fold_report(reboots, incarnation="d", condition="error", error="x", age=1.4, reported_at=NOW + 1.5)
    assert new.worker.state is S.ERROR


def test_a_report_delayed_past_a_reboot_is_ignored():
    # The report arrived at the engine before the reboot; its signal was delivered two minutes later.
    reboots = rebooted(ready())
    for held_back in (NOW - 1, NOW + 0.5):
        late = fold_report(reboots, now=NOW + 120, reported_at=held_back, condition="error", error="x")
        assert late.worker.state is S.REBOOTING


def test_old_reports_are_ignored_after_a_report_of_the_new_process():
    back = fold_report(rebooted(ready()), incarnation="b", age=2.0, reported_at=NOW + 20).worker
    late = fold_report(back, condition="error", error="x", reported_at=NOW + 21, in_flight=2)
    assert (late.worker.state, late.worker.in_flight, late.lines) == (S.READY, 0, ())


@pytest.mark.parametrize(
    ("order", "operation"),
    [
        (Reboot(launch_id="w", reason="r"), "reboot"),
        (Update(launch_id="w", revision=2, reason="r"), "update"),
    ],
)
def test_every_restart_ends_the_process(order, operation):
    again = accepted(apply_operation(ready(), order, NOW), operation, NOW + 1)
    late = fold_report(again, condition="error", error="x", reported_at=NOW + 2)
    assert late.worker.state is again.state
    assert fold_report(again, incarnation="b", age=0.5, reported_at=NOW + 2).worker.state is S.READY


def test_a_start_ignores_reports_of_the_stopped_process():
    stopped = accepted(apply_operation(ready(), Stop(launch_id="w", reason="r"), NOW), "stop", NOW + 1)
    cold = advance(stopped, S.INACTIVE, NOW + 5)
    starts = apply_operation(cold, Activate(launch_id="w", reason="r"), NOW + 6)
    starts = accepted(starts, "start", NOW + 7)
    late = fold_report(starts, condition="error", error="x", reported_at=NOW + 8)
    assert late.worker.state is S.STARTING
    assert fold_report(starts, incarnation="b", age=0.5, reported_at=NOW + 8).worker.state is S.READY


@pytest.mark.parametrize("fields", LATE_REPORTS)
def test_late_reports_of_an_official_worker_are_recognised_by_its_loading_time(fields):
    reboots = rebooted(official())
    late = fold_report(reboots, incarnation="loadtime-12.345678", age=0.0, reported_at=NOW + 60, **fields)
    assert late.worker.state is S.REBOOTING
    new = fold_report(reboots, incarnation="loadtime-11.2", age=0.0, reported_at=NOW + 60, condition="ready")
    assert new.worker.state is S.READY


def test_errors_of_an_official_worker_count_half_a_minute_after_a_reboot():
    loads = fold_report(official(), incarnation="", age=0.0, condition="loading").worker
    assert loads.state is S.STARTING
    broke = fold_report(
        loads, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 40
    ).worker
    reboots = rebooted(broke, NOW + 41)
    late = fold_report(reboots, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 52)
    assert late.worker.state is S.REBOOTING
    # A persistent error is repeated every ten seconds, so it is recorded then.
    real = fold_report(reboots, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 80)
    assert real.worker.state is S.ERROR


def test_a_new_process_holds_no_requests():
    busy = draining("w", process=Process(id="a"), in_flight=2, load=9.0, reported_at=NOW - 5)
    folded = fold_report(busy, incarnation="b", condition="loading", age=1.0, in_flight=0, load=0.0)
    assert (folded.worker.state, folded.worker.in_flight, folded.worker.load) == (S.STARTING, 0, 0.0)


def test_a_spontaneous_restart_is_logged_although_the_worker_is_ready_again():
    folded = fold_report(ready(), incarnation="b", age=3.0)
    assert folded.lines == ("w (1x RTX 4090) restarted by itself and is ready again",)
    assert folded.worker.process.ended == ("a",)


def test_a_process_that_restarts_by_itself_after_an_error_is_not_rebooted_again():
    broken = ready(state=S.ERROR, error="x", reboots=1, since=NOW - 2)
    folded = fold_report(broken, incarnation="b", condition="loading", age=1.0).worker
    assert folded.state is S.STARTING
    assert brief(decide(see(folded, load=steady(0)))) == []


def test_a_suspicion_older_than_the_restart_does_not_apply_to_the_new_process():
    back = fold_report(
        rebooted(ready(suspect_since=NOW - 30)), incarnation="b", age=2.0, reported_at=NOW + 20
    ).worker
    # Another engine does not know the new process and repeats a suspicion of the old one.
    folded = fold_report(back, incarnation="", age=0.0, reported_at=0.0, suspect_since=NOW - 30, now=NOW + 50)
    assert folded.worker.suspect_since is None
    since = fold_report(back, incarnation="", age=0.0, reported_at=0.0, suspect_since=NOW + 40, now=NOW + 50)
    assert since.worker.suspect_since == NOW + 40


def test_reports_out_of_order_do_not_exclude_the_running_process():
    # "c" is the later process. The only report of "b" was delayed by half a minute, so "b" appears younger.
    worker_ = fold_report(ready(), incarnation="c", age=1.0, reported_at=NOW + 10).worker
    worker_ = fold_report(worker_, incarnation="b", age=1.0, reported_at=NOW + 15).worker
    assert worker_.process.id == "b"
    for second in range(16, 46):
        worker_ = fold_report(worker_, incarnation="c", age=second - 9.0, reported_at=NOW + second).worker
    assert worker_.process.id == "b"
    worker_ = fold_report(worker_, incarnation="c", age=37.0, reported_at=NOW + 46).worker
    assert (worker_.process.id, worker_.process.ended) == ("c", ("a", "b"))


def test_the_number_of_ended_process_ids_is_bounded():
    process = Process()
    for number in range(20):
        process = process.with_report(f"p{number}", float(number)).with_end(NOW + number)
    assert process.ended == ("p16", "p17", "p18", "p19")


# Machines that run although a stop or release was ordered


def ordered_to_stop(**given) -> Worker:
    return accepted(apply_operation(ready(**given), Stop(launch_id="w", reason="r"), NOW), "stop", NOW + 1)


def test_a_worker_that_starts_late_is_used():
    cold = advance(ordered_to_stop(), S.INACTIVE, NOW + 10)
    assert cold.burn_dollars_per_hour == 0.01
    folded = fold_report(cold, incarnation="b", condition="loading", age=2.0, reported_at=NOW + 660)
    assert folded.worker.state is S.STARTING
    assert folded.worker.burn_dollars_per_hour == 0.3
    assert folded.lines == (
        "w (1x RTX 4090) runs although it was stopped 11 min ago; it is used or stopped again",
    )
    assert (
        fold_report(folded.worker, incarnation="b", age=12.0, reported_at=NOW + 670).worker.state is S.READY
    )


@pytest.mark.parametrize("incarnation", ["b", "a"])
def test_a_stopped_machine_that_reports_ready_is_drained_if_not_needed(incarnation):
    cold = advance(ordered_to_stop(), S.INACTIVE, NOW + 10)
    folded = fold_report(
        cold, incarnation=incarnation, age=20.0 if incarnation == "b" else 4260.0, reported_at=NOW + 660
    )
    assert (folded.worker.state, folded.worker.burn_dollars_per_hour) == (S.READY, 0.3)
    assert not folded.learned.kinds  # the duration of the start is unknown
    stops = endpoint(endpoint_state="stopped")
    seen = see(
        folded.worker, now=NOW + 661, listed_at=NOW + 660, config=stops, load=steady(0, until=NOW + 660)
    )
    assert brief(decide(seen)) == ["drain w to stop"]


def test_a_machine_that_runs_after_its_stop_is_billed_and_stopped_again():
    stopping = ordered_to_stop()
    for late in (NOW + 2, NOW + 31):
        assert fold_report(stopping, age=3700.0, reported_at=late).worker == stopping
    folded = fold_report(stopping, age=3700.0, reported_at=NOW + 32)
    assert (folded.worker.state, folded.worker.burn_dollars_per_hour) == (S.STOPPING, 0.3)
    assert folded.lines == (
        "w (1x RTX 4090) still runs 32 s after its stop was ordered; billed, stopping again",
    )
    seen = see(folded.worker, now=NOW + 32, listed_at=NOW + 31)
    assert brief(decide(seen)) == ["stop w"]
    again = apply_operation(folded.worker, decide(seen).operations[0], NOW + 32)
    assert not fold_report(again, age=3710.0, reported_at=NOW + 40).lines
    assert advance(again, S.INACTIVE, NOW + 50).burn_dollars_per_hour == 0.01


def test_an_abandoned_start_that_succeeds_is_stopped_again_at_once():
    folded = fold_report(
        ordered_to_stop(), incarnation="b", condition="loading", age=1.0, reported_at=NOW + 5
    )
    assert folded.worker.still_reporting
    assert brief(decide(see(folded.worker, now=NOW + 5, listed_at=NOW + 4))) == ["stop w"]


def test_a_cold_worker_that_runs_while_it_is_released_is_billed_and_released_again():
    cold = advance(ordered_to_stop(), S.INACTIVE, NOW + 10)
    leaves = accepted(
        apply_operation(cold, Destroy(launch_id="w", reason="r"), NOW + 20), "destroy", NOW + 21
    )
    assert (leaves.burn_dollars_per_hour, counted_dollars_per_hour(leaves)) == (0.0, 0.0)
    folded = fold_report(leaves, incarnation="b", age=1.0, condition="loading", reported_at=NOW + 25)
    assert folded.worker.burn_dollars_per_hour == counted_dollars_per_hour(folded.worker) == 0.3
    assert folded.lines == (
        "w (1x RTX 4090) still runs 5 s after its release was ordered; billed, releasing again",
    )
    assert "destroy w" in brief(decide(see(folded.worker, now=NOW + 25, listed_at=NOW + 24)))


def test_late_reports_of_a_worker_stopped_before_it_loaded_are_ignored():
    loads = worker("w", S.MODEL_LOADING, process=Process(id="a"), since=NOW - 60)
    created = advance(loads, S.CREATED, NOW)
    assert fold_report(created, condition="loading", age=60.0, reported_at=NOW + 3).worker.state is S.CREATED
    assert fold_report(
        created, incarnation="b", condition="loading", age=1.0, reported_at=NOW + 3
    ).worker.state is (S.MODEL_LOADING)


def test_the_earliest_reported_start_of_a_process_counts():
    process = Process(id="a", started_at=NOW)
    assert process.with_report("a", NOW - 2).started_at == NOW - 2
    assert process.with_report("a", NOW + 2).started_at == NOW
    assert process.with_report("a", 0.0).started_at == NOW, "the age is unknown"
    assert Process(id="a").with_report("a", NOW).started_at == NOW


def test_an_unknown_process_that_started_clearly_earlier_is_late():
    process, order = Process(id="a", started_at=NOW), DEFAULT_TUNING.process_order_seconds
    late = [
        process.is_late("b", at, reported_at=NOW, quiet_since=None)
        for at in (NOW - order - 1, NOW - order + 0.5)
    ]
    assert late == [True, False]
    assert not process.is_late("b", 0.0, reported_at=NOW, quiet_since=None), "its age is unknown"
    assert not process.is_late("a", NOW - 9 * order, reported_at=NOW, quiet_since=None)
