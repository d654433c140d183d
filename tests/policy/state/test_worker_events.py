import pytest

from policy.state.billing import CostLedger, accrue
from policy.state.machine_stats import Boot, learn_boot, learn_perf, remember_hosts
from policy.state.reconcile import fold_listing
from policy.state.worker import HostFailure, MachineStats
from policy.state.worker_events import fold_drain_seen, fold_metrics, fold_operation_result
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Instance
from stoker_wire.states import WorkerState as S
from tests.policy.builders import COLD, NOW, committed_dollars_per_hour, draining, report, worker


def fold_report(about, **fields):
    return fold_metrics(about, report(**fields), now=NOW, learned=MachineStats())


# Reports


@pytest.mark.parametrize("state", [S.PENDING, S.CREATING, S.LOADING, S.MODEL_LOADING])
def test_the_first_ready_report_ends_the_boot_and_records_time_and_perf(state):
    folded = fold_report(worker("w", state, since=NOW - 40, launched_at=NOW - 140, instance_id=None))
    assert (folded.worker.state, folded.worker.perf, folded.worker.instance_id) == (S.READY, 120.0, 77)
    assert folded.worker.loaded_once
    record = folded.learned.kind(1, "1x RTX 4090")
    assert (record.boot_seconds, record.boots, record.perf, record.samples) == (140, 1, 120.0, 1)
    parts = " (image 100 s, load 40 s)" if state is S.MODEL_LOADING else ""
    assert folded.lines == (f"w (1x RTX 4090) is ready after 2 min{parts}; 120 load/s",)


def test_the_parts_of_a_boot_come_from_the_listing_and_from_the_worker():
    booting = worker("w", S.MODEL_LOADING, since=NOW - 60, launched_at=NOW - 90)
    folded = fold_report(booting, download_s=45.0)
    assert folded.lines == (
        "w (1x RTX 4090) is ready after 90 s (image 30 s, download 45 s, load 15 s); 120 load/s",
    )
    record = folded.learned.kind(1, "1x RTX 4090")
    assert (record.pull_seconds, record.download_seconds, record.boot_seconds) == (30.0, 45.0, 90.0)
    assert "(image 30 s, load 60 s)" in fold_report(booting).lines[0], "no download was reported"
    assert "download 60 s, load 0 s" in fold_report(booting, download_s=1e6).lines[0]


def test_an_estimated_perf_is_no_sample_until_it_is_measured():
    folded = fold_report(worker("w", S.MODEL_LOADING, since=NOW - 60), perf=1000.0, provisional=True)
    assert (folded.worker.perf, folded.worker.provisional) == (1000.0, True)
    assert folded.lines[0].endswith("1000 load/s, estimated")
    assert folded.learned.kind(1, "1x RTX 4090").samples == 0
    raised = fold_report(folded.worker, perf=1200.0, provisional=True)
    assert (raised.worker.perf, raised.learned.kinds) == (1200.0, ())
    # A benchmark that confirms the estimate is a sample as well.
    measured = fold_report(raised.worker, perf=1200.0)
    assert (measured.worker.provisional, measured.learned.kind(1, "1x RTX 4090").perf) == (False, 1200.0)
    assert fold_report(measured.worker, perf=1200.0).lines == ()


def test_an_estimate_after_a_restart_does_not_replace_the_measurement():
    folded = fold_report(worker("w", S.STARTING, since=NOW - 25, perf=300.0), perf=40.0, provisional=True)
    assert (folded.worker.state, folded.worker.perf, folded.worker.provisional) == (S.READY, 300.0, False)
    assert folded.learned.kind(1, "1x RTX 4090").samples == 0


def test_estimates_of_others_do_not_bound_a_measurement():
    others = [worker(name, perf=40.0, provisional=True) for name in ("a", "b", "c")]
    new = worker("w", perf=40.0, provisional=True)
    folded = fold_metrics(new, report(perf=900.0), now=NOW, learned=MachineStats(), fleet=[*others, new])
    assert folded.worker.perf == 900.0
    assert (
        fold_metrics(
            new,
            report(perf=900.0),
            now=NOW,
            learned=MachineStats(),
            fleet=[*(one.replace(provisional=False) for one in others), new],
        ).worker.perf
        == 120.0
    ), "three times what measured workers of its kind reach"


def test_a_ready_report_ends_a_start_and_records_its_time():
    folded = fold_report(worker("w", S.STARTING, since=NOW - 25, perf=120.0))
    record = folded.learned.kind(1, "1x RTX 4090")
    assert folded.worker.state is S.READY
    assert (record.start_seconds, record.starts, record.boots, record.samples) == (25, 1, 0, 0)


@pytest.mark.parametrize("state", [S.STARTING, S.REBOOTING, S.UPDATE_STARTING])
def test_a_report_from_before_a_restart_does_not_end_it(state):
    folded = fold_report(worker("w", state, since=NOW, loaded_once=True), reported_at=NOW)
    assert folded.worker.state is state
    assert folded.lines == ()


@pytest.mark.parametrize(("state", "operation"), [(S.REBOOTING, "reboot"), (S.UPDATE_REBOOTING, "update")])
def test_reports_during_a_restart_request_do_not_end_the_restart(state, operation):
    asked = worker("w", state, since=NOW - 10, operation=operation, loaded_once=True)
    assert fold_report(asked, reported_at=NOW).worker.state is state
    assert fold_report(asked.replace(operation=""), reported_at=NOW).worker.state is S.READY


@pytest.mark.parametrize("state", [S.STOPPING, S.INACTIVE, S.DESTROYING])
def test_late_reports_of_a_stopped_worker_change_nothing(state):
    folded = fold_report(worker("w", state, since=NOW - 10), load=5.0)
    assert (folded.worker.state, folded.worker.load) == (state, 0.0)


def test_an_older_report_updates_only_the_tickets():
    folded = fold_report(worker("w", reported_at=NOW), reported_at=NOW - 1, load=9.0, tickets_open=2)
    assert (folded.worker.load, folded.worker.tickets_open, folded.worker.reported_at) == (0.0, 2, NOW)


def test_tickets_of_several_engines_are_passed_as_a_sum():
    folded = fold_metrics(
        worker("w"), report(tickets_open=1), now=NOW, learned=MachineStats(), tickets_open=4
    )
    assert folded.worker.tickets_open == 4


def test_an_error_takes_a_worker_out_of_service():
    folded = fold_report(worker("w"), condition="error", error="CUDA out of memory")
    assert (folded.worker.state, folded.worker.error) == (S.ERROR, "CUDA out of memory")


def test_an_error_at_the_first_boot_counts_as_a_failure_of_its_kind():
    folded = fold_report(worker("w", S.MODEL_LOADING), condition="error", error="boom")
    assert folded.learned.kind(1, "1x RTX 4090").failures == 1


def test_an_hour_in_service_resets_the_reboot_count():
    assert fold_report(worker("w", reboots=1, since=NOW - 3601), condition="error").worker.reboots == 0
    assert fold_report(worker("w", reboots=1, since=NOW - 3600), condition="error").worker.reboots == 1


def test_a_ready_worker_that_loads_again_has_restarted():
    assert fold_report(worker("w"), condition="loading").worker.state is S.STARTING


def test_a_loading_report_shows_that_the_container_runs():
    assert fold_report(worker("w", S.LOADING), condition="loading").worker.state is S.MODEL_LOADING


def test_a_suspicion_is_cleared_by_a_later_report_only():
    ill = worker("w", suspect_since=NOW - 5, reported_at=NOW - 9)
    assert fold_report(ill, reported_at=NOW - 6).worker.suspect_since == NOW - 5
    assert fold_report(ill, reported_at=NOW - 4).worker.suspect_since is None


def test_a_drain_confirmation_is_recorded_once():
    seen = fold_drain_seen(draining("w", seen=None), at=NOW)
    assert seen.drain.seen_at == NOW
    assert fold_drain_seen(seen, at=NOW + 5).drain.seen_at == NOW
    assert fold_drain_seen(worker("w"), at=NOW).drain is None


# Results of operations


def result(about, operation, ok=True, **more):
    return fold_operation_result(about, operation, now=NOW, learned=MachineStats(), ok=ok, **more)


def test_a_create_result_sets_the_instance_id():
    born = worker("w", S.PENDING, operation="create", instance_id=None)
    made = result(born, "create", instance_id=7).worker
    assert (made.state, made.instance_id, made.operation) == (S.CREATING, 7, "")


def test_a_gone_offer_blocks_its_host_briefly_and_counts_no_failure():
    born = worker("w", S.PENDING, operation="create")
    folded = result(born, "create", ok=False, error_kind="offer_gone", error="rented")
    (host,) = folded.learned.failed_hosts
    assert folded.worker is None
    assert (host.until, host.failed_at) == (NOW + 300, 0.0)


def test_a_refused_create_counts_as_a_failure_of_its_workergroup():
    born = worker("w", S.PENDING, operation="create", loaded_once=False)
    folded = result(born, "create", ok=False, error_kind="refused", error="no such template")
    (host,) = folded.learned.failed_hosts
    assert (folded.worker, host.workergroup_id, host.failed_at) == (None, 1, NOW)


def test_a_create_of_unknown_outcome_is_released_by_its_label():
    born = worker("w", S.PENDING, operation="create")
    folded = result(born, "create", ok=False, error_kind="unavailable", error="timeout")
    assert folded.worker.state is S.DESTROYING


def test_a_failed_start_leaves_the_worker_cold_and_pauses_longer_each_time():
    starting = worker("w", S.STARTING, operation="start")
    first = result(starting, "start", ok=False, error_kind="unavailable", error="503").worker
    assert (first.state, first.retry_at, first.failures) == (S.INACTIVE, NOW + 5, 1)
    third = result(starting.replace(failures=2), "start", ok=False, error_kind="unavailable").worker
    assert third.retry_at == NOW + 20
    many = result(starting.replace(failures=50), "start", ok=False, error_kind="unavailable").worker
    assert many.retry_at == NOW + 300


def test_an_update_sets_the_revision_only_on_success():
    inactive = worker("w", COLD, operation="update")
    assert result(inactive, "update", revision=2).worker.revision == 2
    failed = result(inactive, "update", ok=False, error_kind="unavailable", revision=2).worker
    assert (failed.revision, failed.failures) == (1, 1)
    rolling = worker("w", S.UPDATE_REBOOTING, operation="update")
    assert result(rolling, "update", revision=2).worker.state is S.UPDATE_STARTING
    assert result(rolling, "update", ok=False, error_kind="unavailable").worker.state is S.UPDATE_READY


def test_a_gone_instance_removes_its_worker():
    folded = result(worker("w", S.STARTING, operation="start"), "start", ok=False, error_kind="instance_gone")
    assert folded.worker is None
    assert "vanished" in folded.lines[0]


def test_a_failed_stop_is_repeated_after_the_pause_instead_of_the_usual_time():
    stopping = worker("w", S.STOPPING, since=NOW - 3, operation="stop")
    failed = result(stopping, "stop", ok=False, error="500").worker
    assert failed.since == NOW - DEFAULT_TUNING.stop_retry_seconds
    assert failed.retry_at == NOW + DEFAULT_TUNING.operation_retry_seconds
    resumed = result(
        worker("w", S.READY, since=NOW - 3, operation="stop"), "stop", ok=False, error="500"
    ).worker
    assert resumed.since == NOW - 3, "the worker serves, so no stop is repeated"


def test_an_answer_without_a_report_is_no_sign_of_a_stopping_worker():
    stopping = worker("w", S.STOPPING, since=NOW - 300, reported_at=NOW - 301)
    assert not fold_report(stopping, reported_at=0.0).worker.still_reporting
    assert fold_report(stopping, reported_at=NOW).worker.still_reporting


def test_a_destroy_is_repeated_until_it_is_confirmed():
    assert result(worker("w", S.DESTROYING, operation="destroy"), "destroy").worker.retry_at == NOW + 60


# Listings

PREFIX = "stoker:llm:"


def instance(number=77, launch="w", status="running", intended="running", **more):
    return Instance(id=number, label=PREFIX + launch, actual_status=status, intended_status=intended, **more)


def listing(workers, *instances, asked=NOW - 1, gone=None, shown=()):
    """A listing. `gone` are ids reported as gone by a query by id; default: every id that is not listed."""
    there = {each.id for each in instances}
    absent = {each.instance_id for each in workers} - there if gone is None else gone
    how = {"gone": absent, "shown": shown, "label_prefix": PREFIX, "learned": MachineStats()}
    return fold_listing(workers, instances, now=NOW, asked_at=asked, **how)


def listed(about, **fields):
    return listing([about.replace(instance_id=77)], instance(**fields)).workers[0]


@pytest.mark.parametrize(
    ("state", "status", "intended", "after"),
    [
        (S.CREATING, None, "running", S.LOADING),
        (S.CREATING, "loading", "running", S.LOADING),
        (S.LOADING, "running", "running", S.MODEL_LOADING),
        (S.CREATING, "stopped", "stopped", S.CREATED),
        (S.LOADING, "exited", "running", S.ERROR),
        (S.READY, "running", "running", S.READY),
        (S.READY, "exited", "running", S.ERROR),
        (S.READY, "stopped", "stopped", S.INACTIVE),
        (S.STOPPING, "running", "stopped", S.STOPPING),
        (S.STOPPING, "stopped", "stopped", S.INACTIVE),
        (S.STOPPING, "exited", "stopped", S.INACTIVE),
        (S.INACTIVE, "running", "running", S.STARTING),
        (S.STARTING, "stopped", "running", S.STARTING),
        (S.DESTROYING, "running", "running", S.DESTROYING),
    ],
)
def test_each_market_status_leads_to_a_state(state, status, intended, after):
    assert listed(worker("w", state), status=status, intended=intended).state is after


def test_a_stop_that_failed_at_first_is_no_failure_of_the_next_start():
    """`explain_booting` tells clients the error of a worker that boots."""
    stopping = worker("w", S.STOPPING, since=NOW - 300, operation="stop")
    failed = result(stopping, "stop", ok=False, error_kind="unavailable", error="502 of the API").worker
    assert failed.error == "502 of the API"
    assert listed(failed, status="stopped", intended="stopped").error == ""
    broken = worker("w", S.STOPPING, since=NOW - 300, error="CUDA error", retry_at=NOW - 400, failures=1)
    assert listed(broken, status="stopped", intended="stopped").error == "CUDA error"


PULL = "Error response from daemon: manifest for vllm/vllm:nope not found: manifest unknown"


def test_a_host_that_repeats_an_error_of_the_container_fails_the_boot_and_is_quoted():
    # the first message only counts as a failure if it is still there after a minute
    loading = worker("w", S.LOADING, since=NOW - 90, loaded_once=False)
    first = listing([loading.replace(instance_id=77)], instance(status="loading", status_msg=PULL))
    assert first.workers[0].state is S.LOADING
    assert "manifest unknown" in first.lines[0][1]
    second = listing(first.workers, instance(status="loading", status_msg=PULL))
    assert second.workers[0].state is S.ERROR
    assert "its host says: Error response from daemon" in second.workers[0].error


def test_a_host_whose_error_passes_keeps_its_worker():
    loading = worker("w", S.LOADING, since=NOW - 90, loaded_once=False, instance_id=77)
    first = listing([loading], instance(status="loading", status_msg=PULL))
    after = listing(first.workers, instance(status="running", status_msg="success, running"))
    assert (after.workers[0].state, after.workers[0].error) == (S.MODEL_LOADING, "")


def test_progress_of_a_pull_is_no_error():
    loading = worker("w", S.LOADING, since=NOW - 900, loaded_once=False, instance_id=77)
    after = listing([loading], instance(status="loading", status_msg="Pulling fs layer 3 of 17"))
    assert (after.workers[0].state, after.lines) == (S.LOADING, ())


def test_a_listing_older_than_the_last_change_changes_no_state():
    fresh = worker("w", COLD, since=NOW, instance_id=77)
    assert listing([fresh], instance(), asked=NOW - 1).workers == (fresh,)


def test_a_listing_updates_prices_and_the_market_status():
    folded = listed(worker("w"), dph_total=0.5, storage_total_cost=0.02, machine_id=9)
    assert (folded.dollars_per_hour, folded.storage_dollars_per_hour, folded.machine_id) == (0.5, 0.02, 9)
    assert folded.market_status == "running"


@pytest.mark.parametrize("odd", [-5.0, float("nan"), float("inf"), 1e300, "free", [], {}])
def test_an_invalid_price_keeps_the_recorded_one(odd):
    before = worker("w", dollars_per_hour=0.4, storage_dollars_per_hour=0.01)
    folded = listed(before, dph_total=odd, storage_total_cost=odd)
    assert (folded.dollars_per_hour, folded.storage_dollars_per_hour) == (0.4, 0.01)


def test_a_worker_on_an_offline_host_is_suspected():
    assert listed(worker("w"), status="offline").suspect_since == NOW


def test_a_worker_that_is_no_longer_listed_is_removed():
    after = listing([worker("w"), worker("x", instance_id=5)], instance(number=5, launch="x"))
    assert [each.launch_id for each in after.gone] == ["w"]
    ((launch_id, line),) = after.lines
    assert launch_id == "w"
    assert "outbid or killed" in line


def test_a_known_worker_stays_until_a_query_by_id_reports_it_gone():
    after = listing([worker("w", instance_id=7), worker("x", instance_id=8)], gone={8})
    assert [each.launch_id for each in after.gone] == ["x"]
    assert [each.launch_id for each in after.workers] == ["w"]
    assert after.lines[0][0] == "", "it is about the list and not about one worker"
    assert "lacks 1 of 2 known instances" in after.lines[0][1]


def test_an_edited_label_is_logged_once_and_the_worker_is_kept_by_its_id():
    edited = replace_label(instance(), "mine, do not touch")
    first = listing([worker("w", instance_id=77)], edited, shown={77})
    assert [each.launch_id for each in first.workers] == ["w"]
    assert first.orphans == ()
    assert "was edited outside" in first.lines[0][1]
    again = listing(first.workers, edited, shown={77})
    assert again.lines == ()
    restored = listing(again.workers, instance())
    assert not restored.workers[0].relabelled


def test_a_worker_with_an_edited_label_still_follows_the_listing():
    edited = replace_label(instance(status="exited", intended="stopped"), None)
    (after,) = listing([worker("w", instance_id=77)], edited, shown={77}).workers
    assert after.state is S.INACTIVE


def test_an_incomplete_listing_removes_no_launch_without_an_id():
    lost = worker("lost", S.DESTROYING, since=NOW - 90, launched_at=NOW - 90, instance_id=None, retry_at=NOW)
    known = worker("w", instance_id=77)
    after = listing([lost, known], instance(), shown={77})
    assert [each.launch_id for each in after.workers] == ["lost", "w"]
    assert listing([lost, known], instance()).gone == (lost,)


def test_a_new_instance_may_be_missing_in_a_complete_listing():
    young = worker("y", S.CREATING, since=NOW - 5, launched_at=NOW - 5, instance_id=8)
    lost = worker("lost", S.DESTROYING, since=NOW - 90, launched_at=NOW - 90, instance_id=None, retry_at=NOW)
    after = listing([young, lost], instance(number=8, launch="y"), shown={8})
    assert after.gone == (lost,)


def test_a_worker_being_created_may_be_missing_in_the_listing():
    born = worker("w", S.PENDING, operation="create", instance_id=None)
    at_the_second_try = worker("x", S.CREATING, since=NOW - 1, launched_at=NOW - 60)
    assert listing([born, at_the_second_try]).gone == ()
    assert listing([at_the_second_try.replace(since=NOW - 31)]).gone != ()


def test_a_released_worker_is_gone_once_it_is_not_listed():
    leaving = worker("w", S.DESTROYING, since=NOW - 9, retry_at=NOW + 50)
    assert listing([leaving]).workers == ()
    assert listing([leaving.replace(operation="destroy")]).workers != ()


def test_an_orphan_instance_becomes_a_worker_to_destroy():
    after = listing([], instance(number=9, launch="lost"))
    (orphan,) = after.orphans
    assert (orphan.launch_id, orphan.instance_id, orphan.state) == ("lost", 9, S.DESTROYING)


@pytest.mark.parametrize(
    ("status", "intended", "counted"),
    [("running", "running", 0.5), ("loading", "running", 0.5), (None, None, 0.5), ("exited", "stopped", 0.0)],
)
def test_an_orphan_counts_against_the_budget_until_it_is_gone_if_it_runs(status, intended, counted):
    lost = instance(number=9, launch="lost", status=status, intended=intended, dph_total=0.5)
    after = listing([], lost)
    assert committed_dollars_per_hour(after.orphans) == counted
    assert committed_dollars_per_hour(listing([], asked=NOW + 60).workers) == 0.0


def test_a_second_instance_of_one_launch_is_an_orphan():
    after = listing([worker("w", instance_id=77)], instance(), instance(number=78))
    assert [each.launch_id for each in after.orphans] == ["w-78"]
    again = listing([*after.workers, *after.orphans], instance(), instance(number=78))
    assert again.orphans == ()
    assert again.gone == ()


def test_instances_of_other_endpoints_are_left_alone():
    other = replace_label(instance(number=9), "stoker:llm2:w")
    assert listing([], other).orphans == ()


def replace_label(instance, label):
    return instance.model_copy(update={"label": label})


# Statistics and cost


def test_boot_times_are_smoothed_and_perfs_averaged():
    learned = learn_boot(
        learn_boot(MachineStats(), worker("w"), Boot(seconds=100)), worker("w"), Boot(seconds=200)
    )
    assert learned.kind(1, "1x RTX 4090").boot_seconds == pytest.approx(130)
    learned = learn_perf(learn_perf(learned, worker("w"), 100), worker("w"), 200)
    assert learned.kind(1, "1x RTX 4090").perf == pytest.approx(150)


def test_host_blocks_expire():
    old = HostFailure(machine_id=1, until=NOW, reason="x")
    new = HostFailure(machine_id=2, until=NOW + 1, reason="x")
    assert remember_hosts(MachineStats(failed_hosts=(old,)), [new], NOW).failed_hosts == (new,)


def test_dollars_are_counted_by_state():
    crowd = [worker("hot", price=0.36), worker("cold", COLD), worker("new", S.PENDING)]
    ledger = accrue(accrue(CostLedger(), crowd, NOW), crowd, NOW + 1000)
    assert dict(ledger.by_state).get("idle", 0.0) == pytest.approx(0.1)
    assert dict(ledger.by_state).get("stopped", 0.0) == pytest.approx(0.01 * 1000 / 3600)
    assert ledger.dollars == pytest.approx(0.1 + 0.01 * 1000 / 3600)
    assert accrue(ledger, crowd, NOW) == ledger
