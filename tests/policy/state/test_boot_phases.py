"""The phases of a boot with the time at which each began."""

from policy.state.lifecycle import advance, enter_phase
from policy.state.reconcile import fold_listing
from policy.state.worker_events import fold_metrics
from stoker_wire.market import Instance
from stoker_wire.states import WorkerState as S
from tests.policy.builders import NOW, knows, report, worker


def test_the_phases_of_a_first_boot_are_recorded_with_those_that_the_worker_reports():
    boots = worker("w", S.PENDING, boot=(("pending", NOW),))
    boots = advance(boots, S.CREATING, NOW + 2)
    boots = advance(boots, S.LOADING, NOW + 5)
    for phase, at in (("load", 40), ("download", 41), ("load", 70), ("benchmark", 80)):
        loading = report(condition="loading", phase=phase, reported_at=NOW + at, perf=0.0)
        folded = fold_metrics(boots, loading, now=NOW + at, learned=knows())
        assert folded.worker is not None
        boots = folded.worker
    ready = fold_metrics(boots, report(reported_at=NOW + 90), now=NOW + 90, learned=knows()).worker
    assert ready is not None
    assert ready.boot == (
        ("pending", NOW),
        ("creating", NOW + 2),
        ("loading", NOW + 5),
        ("model_loading", NOW + 40),
        ("load", NOW + 40),
        ("download", NOW + 41),
        ("load", NOW + 70),
        ("benchmark", NOW + 80),
        ("idle", NOW + 90),
    )


def test_an_image_that_does_not_exist_fails_on_every_machine():
    boots = worker("w", S.LOADING, since=NOW - 90, launched_at=NOW - 95)
    for message, everywhere in (
        ("Error response from daemon: manifest unknown", True),
        ("Error response from daemon: pull access denied for x/y", True),
        ("OCI runtime create failed: no devices", False),
    ):
        listed = Instance(id=boots.instance_id, machine_id=7, actual_status="loading", status_msg=message)
        said = boots.replace(error=f"its host says: {message}")
        fleet = fold_listing(
            [said], [listed], now=NOW, asked_at=NOW, label_prefix="stoker:llm:", learned=knows()
        )
        (broken,) = fleet.workers
        assert (broken.state, broken.error_everywhere) == (S.ERROR, everywhere), message


def test_a_restart_begins_the_phases_again_and_a_failure_ends_them():
    was = worker("w", boot=(("pending", NOW), ("idle", NOW + 9)))
    restarted = advance(was, S.REBOOTING, NOW + 100)
    assert restarted.boot == (("rebooting", NOW + 100),)
    assert advance(restarted, S.ERROR, NOW + 120).boot[-1] == ("error", NOW + 120)


def test_the_number_of_phases_is_bounded():
    flaps = worker("w", S.CREATED)
    for number in range(100):
        flaps = advance(advance(flaps, S.LOADING, NOW + number), S.CREATED, NOW + number)
        flaps = enter_phase(advance(flaps, S.MODEL_LOADING, NOW), f"phase {number}", NOW)
        flaps = advance(advance(flaps, S.ERROR, NOW), S.READY, NOW)
        flaps = advance(advance(flaps, S.STOPPING, NOW), S.CREATED, NOW)
    assert len(flaps.boot) <= 3


def test_a_boot_has_at_most_ten_phases_and_the_last_one_is_its_end():
    phases = tuple((f"phase{number}", NOW) for number in range(12))
    ready = advance(worker("w", S.MODEL_LOADING, boot=phases), S.READY, NOW + 9)
    assert ready.boot == (*phases[:9], ("idle", NOW + 9))
