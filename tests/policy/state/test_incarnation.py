"""Reports of a process that has ended say nothing of the next one."""

from dataclasses import dataclass

import pytest

from policy.capacity.budget import counted_dollars_per_hour
from policy.state.incarnation import Process
from policy.state.lifecycle import advance
from policy.state.plan import Activate, Destroy, Reboot, Stop, Update
from policy.state.plan_effects import apply_operation
from policy.state.worker import MachineStats, Worker
from policy.state.worker_events import fold_metrics, fold_operation_result
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, brief, decide, draining, endpoint, see, steady, worker


@dataclass(frozen=True)
class Report:
    """A report of process `incarnation`, which is `age` seconds old when it arrives at the engine."""

    incarnation: str = "a"
    condition: str = "ready"
    error: str = ""
    reported_at: float = NOW
    age: float = 3600.0
    perf: float = 100.0
    load: float = 0.0
    in_flight: int = 0
    tickets_open: int = 0
    suspect_since: float | None = None
    url: str = "http://w"
    official: bool = False
    instance_id: int = 77

    @property
    def started_at(self) -> float:
        return self.reported_at - self.age if self.age else 0.0


def hear(about: Worker, now: float | None = None, **said):
    report = Report(**said)
    return fold_metrics(about, report, now=report.reported_at if now is None else now, learned=MachineStats())


def ready(**given) -> Worker:
    """Ready for long, of process `a`."""
    process = Process(id="a", started_at=NOW - 3600)
    return worker(
        "w", **{"process": process, "since": NOW - 3000, "reported_at": NOW - 5, "loaded_once": True} | given
    )


def official(**given) -> Worker:
    return ready(process=Process(id="loadtime-12.345678"), official=True, **given)


def accepted(about: Worker, operation: str, at: float) -> Worker:
    return fold_operation_result(about, operation, now=at, learned=MachineStats(), ok=True).worker


def rebooted(about: Worker, at: float = NOW) -> Worker:
    """A reboot was ordered at `at`, and accepted a second later."""
    return accepted(apply_operation(about, Reboot(launch_id="w", reason="r"), at), "reboot", at + 1)


LAST_WORDS = [
    {"condition": "error", "error": "the model server ended"},
    {"condition": "ready"},
    {"condition": "loading"},
]


@pytest.mark.parametrize("said", LAST_WORDS)
@pytest.mark.parametrize("late", [0.02, 0.2, 5.0, 60.0])
def test_the_last_report_of_a_process_is_not_read_as_the_next_ones(said, late):
    reboots = rebooted(ready())
    heard = hear(reboots, reported_at=NOW + 1 + late, age=3600 + late, in_flight=3, load=9.0, **said).worker
    assert (heard.state, heard.error, heard.in_flight, heard.load) == (S.REBOOTING, "", 0, 0.0)
    assert heard.reported_at == NOW - 5
    # the reboot gets its chance: nothing is released and no host is blamed
    assert brief(decide(see(heard, now=NOW + 2 + late, listed_at=NOW + 1 + late, load=steady(0)))) == []
    assert hear(heard, incarnation="b", age=1.0, reported_at=NOW + 62).worker.state is S.READY


def test_an_error_of_the_new_process_is_heard():
    reboots = rebooted(ready())
    broke = hear(
        reboots, incarnation="b", condition="error", error="no GPU", age=2.0, reported_at=NOW + 4
    ).worker
    assert (broke.state, broke.error, broke.reboots) == (S.ERROR, "no GPU", 1)


def test_a_process_that_was_never_heard_before_the_reboot_is_told_from_the_next_by_its_age():
    # "c" restarted by itself 5 s before the reboot; its first report arrives after it
    reboots = rebooted(ready())
    late = hear(reboots, incarnation="c", condition="error", error="x", age=6.5, reported_at=NOW + 1.5)
    assert late.worker.state is S.REBOOTING
    new = hear(reboots, incarnation="d", condition="error", error="x", age=1.4, reported_at=NOW + 1.5)
    assert new.worker.state is S.ERROR


def test_a_report_that_an_engine_held_back_does_not_cross_a_reboot():
    # it arrived at the engine before the reboot; Temporal took the signal two minutes later
    reboots = rebooted(ready())
    for held_back in (NOW - 1, NOW + 0.5):
        late = hear(reboots, now=NOW + 120, reported_at=held_back, condition="error", error="x")
        assert late.worker.state is S.REBOOTING


def test_an_old_report_does_not_come_back_after_the_new_process_was_heard():
    back = hear(rebooted(ready()), incarnation="b", age=2.0, reported_at=NOW + 20).worker
    late = hear(back, condition="error", error="x", reported_at=NOW + 21, in_flight=2)
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
    late = hear(again, condition="error", error="x", reported_at=NOW + 2)
    assert late.worker.state is again.state
    assert hear(again, incarnation="b", age=0.5, reported_at=NOW + 2).worker.state is S.READY


def test_a_start_does_not_listen_to_the_process_that_was_stopped():
    stopped = accepted(apply_operation(ready(), Stop(launch_id="w", reason="r"), NOW), "stop", NOW + 1)
    cold = advance(stopped, S.INACTIVE, NOW + 5)
    starts = apply_operation(cold, Activate(launch_id="w", reason="r"), NOW + 6)
    starts = accepted(starts, "start", NOW + 7)
    late = hear(starts, condition="error", error="x", reported_at=NOW + 8)
    assert late.worker.state is S.STARTING
    assert hear(starts, incarnation="b", age=0.5, reported_at=NOW + 8).worker.state is S.READY


@pytest.mark.parametrize("said", LAST_WORDS)
def test_the_last_report_of_an_official_worker_is_told_by_its_loading_time(said):
    reboots = rebooted(official())
    late = hear(reboots, incarnation="loadtime-12.345678", age=0.0, reported_at=NOW + 60, **said)
    assert late.worker.state is S.REBOOTING
    new = hear(reboots, incarnation="loadtime-11.2", age=0.0, reported_at=NOW + 60, condition="ready")
    assert new.worker.state is S.READY


def test_an_official_worker_that_was_loading_is_not_told_apart_for_half_a_minute():
    loads = hear(official(), incarnation="", age=0.0, condition="loading").worker
    assert loads.state is S.STARTING
    broke = hear(loads, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 40).worker
    reboots = rebooted(broke, NOW + 41)
    late = hear(reboots, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 52)
    assert late.worker.state is S.REBOOTING
    # it repeats its error every ten seconds: a real one is heard then
    real = hear(reboots, incarnation="", age=0.0, condition="error", error="x", reported_at=NOW + 80)
    assert real.worker.state is S.ERROR


def test_a_new_process_holds_nothing_of_what_the_old_one_held():
    busy = draining("w", process=Process(id="a"), in_flight=2, load=9.0, reported_at=NOW - 5)
    heard = hear(busy, incarnation="b", condition="loading", age=1.0, in_flight=0, load=0.0)
    assert (heard.worker.state, heard.worker.in_flight, heard.worker.load) == (S.STARTING, 0, 0.0)


def test_a_restart_that_nobody_ordered_is_told_although_it_is_ready_again():
    heard = hear(ready(), incarnation="b", age=3.0)
    assert heard.lines == ("w (1x RTX 4090) restarted by itself and is ready again",)
    assert heard.worker.process.ended == ("a",)


def test_a_process_that_restarts_by_itself_after_an_error_is_not_rebooted_again():
    broken = ready(state=S.ERROR, error="x", reboots=1, since=NOW - 2)
    heard = hear(broken, incarnation="b", condition="loading", age=1.0).worker
    assert heard.state is S.STARTING
    assert brief(decide(see(heard, load=steady(0)))) == []


def test_a_suspicion_that_is_older_than_the_restart_is_not_about_the_new_process():
    back = hear(
        rebooted(ready(suspect_since=NOW - 30)), incarnation="b", age=2.0, reported_at=NOW + 20
    ).worker
    # another engine has not heard of the new process, and repeats what a client said of the old one
    told = hear(back, incarnation="", age=0.0, reported_at=0.0, suspect_since=NOW - 30, now=NOW + 50)
    assert told.worker.suspect_since is None
    since = hear(back, incarnation="", age=0.0, reported_at=0.0, suspect_since=NOW + 40, now=NOW + 50)
    assert since.worker.suspect_since == NOW + 40


def test_two_reports_that_overtook_each_other_do_not_lock_the_living_process_out():
    # "c" is the later process; the only report of "b" was on its way for half a minute, so "b" looks younger
    worker_ = hear(ready(), incarnation="c", age=1.0, reported_at=NOW + 10).worker
    worker_ = hear(worker_, incarnation="b", age=1.0, reported_at=NOW + 15).worker
    assert worker_.process.id == "b"
    for second in range(16, 46):
        worker_ = hear(worker_, incarnation="c", age=second - 9.0, reported_at=NOW + second).worker
    assert worker_.process.id == "b"
    worker_ = hear(worker_, incarnation="c", age=37.0, reported_at=NOW + 46).worker
    assert (worker_.process.id, worker_.process.ended) == ("c", ("a", "b"))


def test_the_names_of_ended_processes_are_bounded():
    process = Process()
    for number in range(20):
        process = process.heard(f"p{number}", float(number)).ordered_to_end(NOW + number)
    assert process.ended == ("p16", "p17", "p18", "p19")


# machines that run although they were told to end


def told_to_stop(**given) -> Worker:
    return accepted(apply_operation(ready(**given), Stop(launch_id="w", reason="r"), NOW), "stop", NOW + 1)


def test_a_queued_start_that_is_carried_out_late_is_put_to_use():
    cold = advance(told_to_stop(), S.INACTIVE, NOW + 10)
    assert cold.burn_dollars_per_hour == 0.01
    heard = hear(cold, incarnation="b", condition="loading", age=2.0, reported_at=NOW + 660)
    assert heard.worker.state is S.STARTING
    assert heard.worker.burn_dollars_per_hour == 0.3
    assert heard.lines == (
        "w (1x RTX 4090) runs although it was stopped 11 min ago: it is put to use, or stopped again",
    )
    assert hear(heard.worker, incarnation="b", age=12.0, reported_at=NOW + 670).worker.state is S.READY


@pytest.mark.parametrize("incarnation", ["b", "a"])
def test_a_stopped_machine_that_serves_is_ready_and_drained_where_it_is_not_wanted(incarnation):
    cold = advance(told_to_stop(), S.INACTIVE, NOW + 10)
    heard = hear(
        cold, incarnation=incarnation, age=20.0 if incarnation == "b" else 4260.0, reported_at=NOW + 660
    )
    assert (heard.worker.state, heard.worker.burn_dollars_per_hour) == (S.READY, 0.3)
    assert not heard.learned.kinds  # how long the start took is not known
    stops = endpoint(endpoint_state="stopped")
    seen = see(
        heard.worker, now=NOW + 661, listed_at=NOW + 660, config=stops, load=steady(0, until=NOW + 660)
    )
    assert brief(decide(seen)) == ["drain w to stop"]


def test_a_machine_that_runs_on_after_its_stop_is_billed_and_stopped_again():
    stopping = told_to_stop()
    for late in (NOW + 2, NOW + 31):
        assert hear(stopping, age=3700.0, reported_at=late).worker == stopping
    heard = hear(stopping, age=3700.0, reported_at=NOW + 32)
    assert (heard.worker.state, heard.worker.burn_dollars_per_hour) == (S.STOPPING, 0.3)
    assert heard.lines == (
        "w (1x RTX 4090) still runs 32 s after its stop was ordered: it is billed, and stopped again",
    )
    seen = see(heard.worker, now=NOW + 32, listed_at=NOW + 31)
    assert brief(decide(seen)) == ["stop w"]
    again = apply_operation(heard.worker, decide(seen).operations[0], NOW + 32)
    assert not hear(again, age=3710.0, reported_at=NOW + 40).lines
    assert advance(again, S.INACTIVE, NOW + 50).burn_dollars_per_hour == 0.01


def test_a_start_that_was_given_up_and_is_carried_out_is_stopped_again_at_once():
    heard = hear(told_to_stop(), incarnation="b", condition="loading", age=1.0, reported_at=NOW + 5)
    assert heard.worker.heard_running
    assert brief(decide(see(heard.worker, now=NOW + 5, listed_at=NOW + 4))) == ["stop w"]


def test_a_cold_worker_that_runs_while_it_is_released_is_billed_and_released_again():
    cold = advance(told_to_stop(), S.INACTIVE, NOW + 10)
    leaves = accepted(
        apply_operation(cold, Destroy(launch_id="w", reason="r"), NOW + 20), "destroy", NOW + 21
    )
    assert (leaves.burn_dollars_per_hour, counted_dollars_per_hour(leaves)) == (0.0, 0.0)
    heard = hear(leaves, incarnation="b", age=1.0, condition="loading", reported_at=NOW + 25)
    assert heard.worker.burn_dollars_per_hour == counted_dollars_per_hour(heard.worker) == 0.3
    assert heard.lines == (
        "w (1x RTX 4090) still runs 5 s after its release was ordered: it is billed, and released again",
    )
    assert "destroy w" in brief(decide(see(heard.worker, now=NOW + 25, listed_at=NOW + 24)))


def test_the_last_reports_of_a_worker_that_was_stopped_before_it_loaded_do_not_bring_it_back():
    loads = worker("w", S.MODEL_LOADING, process=Process(id="a"), since=NOW - 60)
    created = advance(loads, S.CREATED, NOW)
    assert hear(created, condition="loading", age=60.0, reported_at=NOW + 3).worker.state is S.CREATED
    assert hear(created, incarnation="b", condition="loading", age=1.0, reported_at=NOW + 3).worker.state is (
        S.MODEL_LOADING
    )
