"""Changes of the config and of workergroups: their effects, their log lines, and whether a plan is due."""

import pytest

from controller import config_events
from policy.state.worker import Goal, HostFailure, MachineStats
from stoker_wire.control import WorkerAction, WorkerChange
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.states import WorkerState as S
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, draining, group, offers, worker


def test_a_changed_config_is_logged_and_a_plan_is_due():
    book = a_book(max_workers=4, target_util=0.9)
    patch = EndpointPatch(max_workers=6, target_util=0.9)
    assert config_events.config(book, patch, NOW) == "the config changed"
    assert book.record.config.max_workers == 6
    assert reasons(book) == ["changed: max_workers = 6"]
    assert (book.log.lines[0].at, book.log.lines[0].kind) == (NOW, "config")


def test_a_config_with_the_same_values_changes_nothing():
    book = a_book(max_workers=4)
    assert config_events.config(book, EndpointPatch(max_workers=4), NOW) == ""
    assert reasons(book) == []


def test_a_workergroup_is_added():
    book = a_book(groups=(group(1),))
    assert config_events.set_workergroup(book, group(2), NOW) == "a workergroup was added"
    assert [each.id for each in book.record.workergroups] == [1, 2]
    (line,) = book.log.lines
    assert (line.reason, line.subject, line.workergroup_id) == ("workergroup added", "2", 2)


def test_a_workergroup_that_is_set_again_unchanged_changes_nothing():
    book = a_book(groups=(group(1, revision=3),))
    book.offers[1] = offers(group=1)
    assert config_events.set_workergroup(book, group(1), NOW) == "", "the revision may be missing"
    assert 1 in book.offers
    assert reasons(book) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"template_hash": "u"},
        {"template_hash": None, "template_id": 5},
        {"search_params": "gpu_name=H100"},
        {"launch_args": "--disk 40"},
    ],
)
def test_a_workergroup_that_launches_something_else_gets_a_new_revision(changed):
    book = a_book(groups=(group(2), group(5, revision=3), group(7)))
    book.offers = {2: offers(group=2), 5: offers(group=5)}
    assert config_events.set_workergroup(book, group(5, **changed), NOW) == "a workergroup changed"
    assert [(each.id, each.revision) for each in book.record.workergroups] == [(2, 1), (5, 4), (7, 1)]
    assert list(book.offers) == [2], "the offers were found for the earlier launch"
    (line,) = book.log.lines
    assert (line.reason, line.subject, line.workergroup_id) == (
        "workergroup changed, revision 4",
        "5",
        5,
    )


def test_a_change_of_limits_keeps_the_revision():
    book = a_book(groups=(group(1, revision=3),))
    assert config_events.set_workergroup(book, group(1, max_workers=2), NOW) == "a workergroup changed"
    (after,) = book.record.workergroups
    assert (after.revision, after.max_workers) == (3, 2)


def test_a_revision_is_raised_by_request_and_never_goes_down():
    book = a_book(groups=(group(1, revision=3),))
    config_events.set_workergroup(book, group(1, revision=9), NOW)
    assert book.record.workergroups[0].revision == 9
    config_events.set_workergroup(book, group(1, revision=2, template_hash="u"), NOW)
    assert book.record.workergroups[0].revision == 10


def test_a_workergroup_is_removed_with_its_offers():
    book = a_book(groups=(group(1), group(5), group(7)))
    book.offers = {1: offers(group=1), 5: offers(group=5)}
    assert config_events.remove_workergroup(book, group(5), NOW) == "a workergroup was removed"
    assert [each.id for each in book.record.workergroups] == [1, 7]
    assert list(book.offers) == [1]
    (line,) = book.log.lines
    assert (line.reason, line.subject, line.workergroup_id) == ("workergroup removed", "5", 5)


def test_a_rolling_update_raises_the_revision_by_one():
    book = a_book(groups=(group(1, revision=3), group(2)))
    assert config_events.update_workers(book, book.record.workergroups[0], NOW) == "a workergroup changed"
    assert [each.revision for each in book.record.workergroups] == [4, 1]


def test_a_cancelled_update_keeps_the_workers_that_have_not_begun():
    book = a_book(
        worker("orphan", workergroup_id=0, revision=1),
        worker("old", revision=1),
        worker("older", revision=0),
        draining("draining", goal=Goal.UPDATE),
        draining("leaving", goal=Goal.STOP),
        worker("begun", S.UPDATE_REBOOTING, revision=1),
        worker("asked", revision=1, operation="update"),
        worker("other", workergroup_id=2, revision=1),
        worker("new", revision=2),
        worker("newer", revision=3),
        groups=(group(1, revision=2), group(2, revision=2)),
    )
    assert config_events.cancel_update(book, group(1, revision=2), NOW) == "an update was cancelled"
    workers = book.record.workers
    assert {name: each.revision for name, each in workers.items()} == {
        "orphan": 1,
        "old": 2,
        "older": 2,
        "draining": 2,
        "leaving": 2,
        "begun": 1,
        "asked": 1,
        "other": 1,
        "new": 2,
        "newer": 3,
    }
    assert workers["draining"].drain is None, "it was drained for the update only"
    assert workers["leaving"].drain is not None
    (line,) = book.log.lines
    assert line.reason == "update to revision 2 cancelled: 4 workers are kept as they are"
    assert (line.subject, line.workergroup_id) == ("1", 1)


def failed(*machine_ids: int) -> MachineStats:
    return MachineStats(
        failed_hosts=tuple(
            HostFailure(machine_id=each, until=NOW + 60, reason="boot") for each in machine_ids
        )
    )


def test_the_named_hosts_are_unblocked():
    book = a_book()
    book.record.learned = failed(7, 5, 6)
    assert config_events.blocked_hosts(book, [7, 5, 9]) == (5, 7)
    assert config_events.unblock_hosts(book, (5, 7), NOW) == "2 hosts may be rented again"
    assert [each.machine_id for each in book.record.learned.failed_hosts] == [6]
    (line,) = book.log.lines
    assert (line.reason, line.subject) == ("2 hosts may be rented again: 5, 7", "hosts")
    assert config_events.unblock_hosts(book, (), NOW) == ""
    assert book.record.learned == failed(6)


@pytest.mark.parametrize(("count", "dots"), [(10, ""), (11, " …")])
def test_all_hosts_are_unblocked_and_at_most_ten_are_named(count, dots):
    book = a_book()
    book.record.learned = failed(*range(1, count + 1))
    hosts = config_events.blocked_hosts(book, [])
    assert len(hosts) == count
    config_events.unblock_hosts(book, hosts, NOW)
    assert reasons(book) == [
        f"{count} hosts may be rented again: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10{dots}",
    ]


def test_a_rotated_key_leaves_the_key_before_valid_for_the_overlap():
    book = a_book()
    assert config_events.rotate_key(book, 60.0, NOW) == "", "it needs no plan"
    assert (book.record.key_version, book.record.key_overlap_until) == (2, NOW + 60)
    config_events.rotate_key(book, 0.0, NOW)
    assert (book.record.key_version, book.record.key_overlap_until) == (3, 0.0)
    assert reasons(book) == [
        "endpoint key rotated, version 2; the key before is accepted for another 60 s",
        "endpoint key rotated, version 3",
    ]


def test_an_operators_action_is_recorded_logged_and_a_plan_is_due():
    book = a_book(worker("w1"))
    drain = WorkerChange(launch_id="w1", action=WorkerAction.DRAIN)
    assert config_events.change_worker(book, drain, NOW) == "an operator asked to drain a worker"
    assert book.record.workers["w1"].asked is WorkerAction.DRAIN
    (line,) = book.log.lines
    assert (line.kind, line.subject, line.reason) == (
        "config",
        "w1",
        "an operator asked to drain it while it was ready",
    )
    assert config_events.change_worker(book, drain, NOW) == "", "it is asked for already"
    assert len(book.log.lines) == 1
