"""Results of operations and listings in the record."""

import pytest

from controller import operation_results
from controller.effects import CreatedInstance, Done, Failed, ListedInstances
from stoker_wire.market import Charge, Instance
from stoker_wire.states import WorkerState as S
from tests.controller.state_book import a_book, reasons
from tests.policy.builders import NOW, draining, offer, offers, worker

NEW = {"instance_id": None, "dollars_per_hour": 0.3, "operation": "create", "offer_id": 4, "machine_id": 9}


def created(book, **given):
    made = CreatedInstance(instance_id=77, **{"storage_dollars_per_hour": 0.02} | given)
    operation_results.ended(book, worker("w", S.PENDING, **NEW), made, NOW)
    return book.record.workers.get("w")


def ordered(state=S.PENDING, **given):
    book = a_book(worker("w", state, **NEW | given))
    book.record.pending_offers["w"] = offer(4)
    return book


def test_a_rented_machine_has_the_instance_and_the_prices_of_the_answer():
    book = ordered()
    made = created(book, machine_id=10, dollars_per_hour=0.4, warnings=("no ssh",))
    assert (made.instance_id, made.machine_id, made.state) == (77, 10, S.CREATING)
    assert (made.dollars_per_hour, made.storage_dollars_per_hour, made.operation) == (0.4, 0.02, "")
    assert (book.record.pending_offers, book.record.workers_rented) == ({}, 1)
    assert reasons(book) == ["rented: instance 77, 1x RTX 4090, $0.400/h", "warning: no ssh"]
    assert [(line.kind, line.level) for line in book.log.lines] == [("worker", 1), ("fail", 0)]
    assert {(line.subject, line.workergroup_id) for line in book.log.lines} == {("w", 1)}


def test_an_answer_without_machine_and_price_leaves_those_of_the_offer():
    book = ordered()
    made = created(book, adopted=True)
    assert (made.machine_id, made.dollars_per_hour) == (9, 0.3)
    assert reasons(book) == ["found the instance of a lost answer: instance 77, 1x RTX 4090, $0.300/h"]


def test_an_answer_for_a_worker_that_is_gone_only_forgets_its_offer():
    book = a_book()
    book.record.pending_offers["w"] = offer(4)
    assert created(book) is None
    assert (book.record.pending_offers, book.record.workers_rented) == ({}, 0)


def ended(book, result, operation, **given):
    before = book.record.workers["w"].replace(operation=operation)
    operation_results.ended(book, before, result, NOW, **given)
    return book.record.workers.get("w")


def test_a_failed_create_removes_the_worker_and_the_offer():
    book = ordered()
    book.offers[1] = offers(offer(3), offer(4), offer(5))
    failed = Failed(kind="OfferGone", text="rented by someone else")
    assert ended(book, failed, "create") is None
    assert [each.id for each in book.offers[1].offers] == [3, 5]
    assert (book.record.pending_offers, book.record.workers_gone) == ({}, 0), "no instance was rented"
    (line,) = book.log.lines
    assert "rented by someone else" in line.reason
    assert (line.kind, line.level, line.subject) == ("fail", 0, "w")


def test_a_failed_create_without_offers_on_record_is_fine():
    book = ordered()
    assert ended(book, Failed(kind="OfferGone", text="gone"), "create") is None
    assert book.offers == {}


def test_a_failed_start_is_tried_again_later_and_keeps_the_offers():
    book = a_book(worker("w", S.STARTING, operation="start", offer_id=4))
    book.record.pending_offers["v"] = offer(9)
    book.offers[1] = offers(offer(4))
    after = ended(book, Failed(kind="", text="busy"), "start")
    assert (after.state, after.failures, after.operation, after.error) == (S.INACTIVE, 1, "", "busy")
    assert [each.id for each in book.offers[1].offers] == [4]
    assert list(book.record.pending_offers) == ["v"]


@pytest.mark.parametrize(
    ("kind", "state"), [("Refused", S.ERROR), ("Unauthorised", S.ERROR), ("", S.REBOOTING)]
)
def test_final_errors_of_the_marketplace_are_known_by_their_name(kind, state):
    book = a_book(worker("w", S.REBOOTING, operation="reboot"))
    assert ended(book, Failed(kind=kind, text="no"), "reboot").state is state


def test_an_instance_that_the_marketplace_does_not_know_is_gone():
    book = a_book(worker("w", S.STARTING, operation="start"))
    book.record.pending_offers["w"] = offer(4)
    assert ended(book, Failed(kind="InstanceGone", text="404"), "start") is None
    assert (book.record.workers_gone, book.record.pending_offers) == (1, {})


def test_a_confirmed_destroy_removes_the_worker_and_an_accepted_one_does_not():
    book = a_book(worker("w", S.DESTROYING, operation="destroy"))
    after = ended(book, Done(), "destroy")
    assert (after.state, after.operation) == (S.DESTROYING, "")
    assert reasons(book) == []
    assert ended(book, Done(confirmed=True), "destroy") is None
    assert book.record.workers_gone == 1
    (line,) = book.log.lines
    assert "released" in line.reason
    assert (line.kind, line.level) == ("worker", 1)


@pytest.mark.parametrize(("loaded", "state"), [(True, S.INACTIVE), (False, S.CREATED)])
def test_a_confirmed_stop_ends_in_the_stopped_state(loaded, state):
    stopping = draining("w", state=S.STOPPING, operation="stop", loaded_once=loaded, retry_at=NOW + 9)
    book = a_book(stopping)
    after = ended(book, Done(confirmed=True), "stop")
    assert (after.state, after.since, after.drain, after.retry_at) == (state, NOW, None, 0.0)


def test_an_accepted_stop_waits_for_the_list():
    book = a_book(worker("w", S.STOPPING, operation="stop", since=NOW - 5))
    after = ended(book, Done(), "stop")
    assert (after.state, after.since, after.stop_accepted_at) == (S.STOPPING, NOW - 5, NOW)


def test_a_confirmed_reboot_or_update_is_not_a_stop():
    book = a_book(worker("w", S.UPDATE_REBOOTING, operation="update"))
    after = ended(book, Done(confirmed=True), "update", revision=4)
    assert (after.state, after.revision) == (S.UPDATE_STARTING, 4)


def test_a_result_for_a_worker_that_is_gone_only_forgets_its_offer():
    book = ordered()
    before = book.record.workers.pop("w")
    operation_results.ended(book, before, Done(), NOW)
    assert (book.record.workers, book.record.pending_offers, reasons(book)) == ({}, {}, [])


def instance(number, name, **given):
    label = f"stoker:llm:{name}"
    return Instance(id=number, label=label, **{"actual_status": "running", "dph_total": 0.3} | given)


def listed(book, *instances, **given):
    found = ListedInstances(instances=instances, **given)
    return operation_results.listed(book, found, NOW - 1, NOW, label_prefix="stoker:llm:")


def test_a_list_without_news_changes_nothing_but_its_time():
    book = a_book(worker("w", instance_id=5, market_status="running"))
    before = book.record.workers["w"]
    assert listed(book, instance(5, "w")) == ""
    assert book.record.workers["w"].replace(machine_id=before.machine_id) == before
    assert book.record.listed_at == NOW - 1
    assert reasons(book) == []


def test_a_worker_whose_instance_is_gone_is_removed():
    book = a_book(worker("w", instance_id=5), worker("v", instance_id=6))
    book.record.pending_offers = {"w": offer(4), "v": offer(5)}
    assert listed(book, instance(6, "v"), gone=(5,)) == "the marketplace's list brought news"
    assert list(book.record.workers) == ["v"]
    assert list(book.record.pending_offers) == ["v"]
    assert book.record.workers_gone == 1
    (line,) = book.log.lines
    assert (line.kind, line.level) == ("worker", 0)


def test_an_unknown_instance_with_our_label_becomes_a_worker_that_is_destroyed():
    book = a_book()
    assert listed(book, instance(8, "x")) == "the marketplace's list brought news"
    (orphan,) = book.record.workers.values()
    assert (orphan.instance_id, orphan.state) == (8, S.DESTROYING)
    assert {line.level for line in book.log.lines} == {0}


def test_a_change_of_a_worker_is_logged_under_its_launch_id_at_level_one():
    book = a_book(worker("w", S.STOPPING, instance_id=5, since=NOW - 60))
    listed(book, instance(5, "w", actual_status="exited", intended_status="stopped"))
    assert book.record.workers["w"].state is S.INACTIVE
    assert [(line.subject, line.level) for line in book.log.lines] == [("w", 1)]


def test_bills_in_a_list_correct_the_ledger():
    book = a_book(worker("w", instance_id=5, price=0.6, launched_at=NOW - 3600))
    book.count_dollars(NOW - 3600)
    listed(book, instance(5, "w", dph_total=0.6))
    assert book.record.ledger.dollars == pytest.approx(0.6)
    charge = Charge(instance_id=5, label="stoker:llm:w", dollars=0.7, since=NOW - 3600, until=NOW)
    listed(book, instance(5, "w", dph_total=0.6), charges=(charge,))
    assert book.record.ledger.dollars == pytest.approx(0.7)
    assert book.record.ledger.settled_at == NOW - 1
