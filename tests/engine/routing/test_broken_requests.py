"""A request that breaks workers is retried once on another worker, then refused. Pure, with a given time."""

import itertools

import pytest

from engine.api.parsing import FastRouteRequest
from engine.routing.failure_detection import broken_requests
from engine.routing.failure_detection.broken_requests import BrokenRequests
from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.worker import KnownWorker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState
from tests.engine.routing.test_dispatcher import World

POISON = "f" * 32


class Fleet(World):
    """An endpoint with ready workers, and clients that retry as stoker's own client does."""

    def __init__(self, *launch_ids: str) -> None:
        super().__init__(max_queue_time=1000)
        self.ready(*launch_ids)
        self._numbers = itertools.count(1)

    def send(
        self, fingerprint: str = "", *, again: QueuedRequest | None = None, unread: bool = False
    ) -> QueuedRequest:
        asked = FastRouteRequest(
            "llm",
            cost=1.0,
            request_idx=again.request_idx if again else 0,
            failed_url=again.worker.route_url if again and again.worker else "",
            unread=unread,
            fingerprint=fingerprint,
        )
        request = self.dispatcher.route(self.endpoint, asked, self.now)
        if request.worker is None and not request.refusal:
            self.hold(request)
        return request

    def breaks(self, launch_id: str, error: str = "the model server died") -> None:
        """The worker reports an error."""
        worker = self.worker(launch_id)
        held = worker.outstanding.requests
        self.report(launch_id, error_msg=error)
        self.dispatcher.worker_broke(self.endpoint, worker, held, error, self.now)

    def recovers(self, launch_id: str) -> None:
        self.report(launch_id)

    def passes(self, seconds: float, *well: str) -> None:
        """Time passes; these workers report without error."""
        for _ in range(round(seconds)):
            self.now += 1
            for launch_id in well:
                self.report(launch_id)
            self.dispatcher.sweep(self.endpoint, self.now)


def on(request: QueuedRequest) -> str:
    return request.worker.launch_id if request.worker else ""


def test_a_request_is_refused_after_two_broken_workers_and_the_others_keep_serving() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send()  # an official client sends an index but no fingerprint
    first = on(request)
    fleet.breaks(first)
    fleet.send(again=request)
    second = on(request)
    assert second not in ("", first)
    fleet.breaks(second)
    fleet.send(again=request)
    assert on(request) == ""
    assert "workers broke 2 times while they had this request" in request.refusal
    assert "the model server died" in request.refusal
    assert request.request_idx not in fleet.endpoint.waiting
    assert len(fleet.endpoint.request_queue) == 0
    assert on(fleet.send()) not in ("", first, second)


def test_the_client_may_retry_before_the_worker_reports_that_it_broke() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    first = on(request)
    fleet.send(POISON, again=request)  # the connection broke before the report arrived
    second = on(request)
    fleet.breaks(first)
    fleet.send(POISON, again=request)
    assert (on(request), request.refusal) == ("", "")  # it is not known yet whether the second worker broke
    fleet.breaks(second)
    assert request.refusal
    assert fleet.woken[request.request_idx] is False


def test_a_failed_end_before_the_error_report_delays_the_retry() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    fleet.breaks(on(request))
    fleet.send(POISON, again=request)
    second = fleet.worker(on(request))
    fleet.dispatcher.request_finished(
        fleet.endpoint, second, request.request_idx, success=False, now=fleet.now, status="Error"
    )
    fleet.send(POISON, again=request)
    assert on(request) == ""
    fleet.breaks(second.launch_id)
    assert request.refusal


def test_a_second_worker_that_reports_well_clears_the_request() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    first = on(request)
    fleet.breaks(first)
    fleet.send(POISON, again=request)
    second = on(request)
    fleet.send(POISON, again=request)  # its connection broke for another reason
    assert on(request) == ""
    fleet.passes(1, second)
    assert on(request) == ""
    fleet.passes(2, second)
    assert on(request) not in ("", first, second)
    assert not request.refusal


def test_a_second_worker_that_rejected_the_request_did_not_break() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    fleet.breaks(on(request))
    fleet.send(POISON, again=request)
    second = fleet.worker(on(request))
    fleet.send(POISON, again=request)
    fleet.dispatcher.request_finished(
        fleet.endpoint, second, request.request_idx, success=False, now=fleet.now, status="Rejected"
    )
    assert fleet.woken == {request.request_idx: True}
    fleet.breaks(second.launch_id)
    assert not request.refusal


def test_another_clients_copy_is_the_same_request() -> None:
    fleet = Fleet("a", "b", "c", "d")
    first = fleet.send(POISON)
    fleet.breaks(on(first))
    copy = fleet.send(POISON)
    assert on(copy) not in ("", on(first))
    waiting = fleet.send(POISON)  # one retry at a time, for any number of copies
    assert on(waiting) == ""
    assert on(fleet.send("0" * 32)) != ""
    fleet.breaks(on(copy))
    assert waiting.refusal
    assert fleet.woken[waiting.request_idx] is False
    arrivals = fleet.endpoint.metrics_batcher
    late = fleet.send(POISON)
    assert late.refusal
    assert len(fleet.endpoint.request_queue) == 0
    assert arrivals is fleet.endpoint.metrics_batcher


def test_a_request_that_another_worker_serves_is_cleared() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    fleet.breaks(on(request))
    fleet.send(POISON, again=request)
    waiting = fleet.send(POISON)
    fleet.dispatcher.request_finished(
        fleet.endpoint, fleet.worker(on(request)), request.request_idx, success=True, now=fleet.now
    )
    fleet.dispatcher.serve_queue(fleet.endpoint, fleet.now)
    assert on(waiting) != ""
    assert len(fleet.endpoint.broken_requests) == 0


def test_the_only_worker_breaks_at_most_twice() -> None:
    fleet = Fleet("a")
    request = fleet.send(POISON)
    fleet.breaks("a")
    fleet.send(POISON, again=request)
    fleet.now += 60
    fleet.recovers("a")
    assert on(request) == "a"
    fleet.breaks("a")
    fleet.send(POISON, again=request)
    assert request.refusal


def test_a_worker_that_stops_reporting_broke_with_its_requests() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    first = on(request)
    others = [each for each in "abc" if each != first]
    fleet.send(POISON, again=request)
    fleet.passes(40, *others)
    assert len(fleet.endpoint.broken_requests) == 1
    second = on(request)
    fleet.send(POISON, again=request)
    fleet.passes(40, *(each for each in others if each != second))
    assert request.refusal


def test_a_cut_network_blames_no_request() -> None:
    """All workers become silent within seconds, and report again afterwards; twice within the hour."""
    fleet = Fleet("a", "b", "c")
    for _ in range(2):
        requests = [fleet.send(POISON) for _ in range(3)]
        fleet.passes(3, "b", "c")
        fleet.passes(3, "c")
        fleet.passes(45)
        for request in requests:
            fleet.send(POISON, again=request)
        fleet.passes(3)
        for launch_id in "abc":
            fleet.recovers(launch_id)
        assert not any(request.refusal for request in requests)
        assert len(fleet.endpoint.broken_requests) == 0


def test_after_a_suspension_of_the_engine_no_worker_counts_as_silent() -> None:
    fleet = Fleet("a", "b")
    fleet.send(POISON)
    fleet.passes(1, "a", "b")
    fleet.now += 300
    fleet.dispatcher.sweep(fleet.endpoint, fleet.now)
    assert len(fleet.endpoint.broken_requests) == 0


def test_the_workflows_state_counts_when_no_report_arrived() -> None:
    fleet = Fleet("a", "b")
    request = fleet.send(POISON)
    fleet.members(on(request), state=WorkerState.REBOOTING)
    fleet.passes(1)
    assert len(fleet.endpoint.broken_requests) == 1


def test_a_request_that_left_shortly_before_the_break_counts() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    worker = fleet.worker(on(request))
    fleet.dispatcher.request_finished(
        fleet.endpoint, worker, request.request_idx, success=True, now=fleet.now, status="Cancelled"
    )
    fleet.now += 9
    fleet.breaks(worker.launch_id)
    assert len(fleet.endpoint.broken_requests) == 1


def test_a_request_that_failed_long_before_the_break_does_not_count() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    worker = fleet.worker(on(request))
    fleet.dispatcher.request_finished(
        fleet.endpoint, worker, request.request_idx, success=False, now=fleet.now, status="Error"
    )
    fleet.now += 10.1
    fleet.breaks(worker.launch_id)
    assert len(fleet.endpoint.broken_requests) == 0


def broken(launch_id: str, at: float) -> KnownWorker:
    worker = KnownWorker(launch_id)
    worker.breaks.at, worker.breaks.cause = at, "x" * 1000
    return worker


def test_a_refusal_ends_after_an_hour_and_its_message_is_bounded() -> None:
    records = BrokenRequests()
    for launch_id, at in (("a", 1000.0), ("b", 1010.0)):
        records.add(POISON, broken(launch_id, at), at)
    record = records.get(POISON, 1010.0 + DEFAULT_TUNING.request_refused_seconds - 0.001)
    assert record is not None
    assert record.is_refused
    assert len(record.sentence) < 600
    assert records.get(POISON, 1010.0 + DEFAULT_TUNING.request_refused_seconds) is None
    assert len(records) == 0


def test_a_break_reported_twice_counts_once() -> None:
    records = BrokenRequests()
    for now in (1000.0, 1004.0):
        records.add(POISON, broken("a", 1000.0), now)
    record = records.get(POISON, 1004.0)
    assert record is not None
    assert not record.is_refused


def test_the_number_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken_requests, "_REMEMBERED_MAX", 3)
    records = BrokenRequests()
    for number in range(10):
        records.add(f"{number}", broken("a", 1000.0), 1000.0)
    assert len(records) == 3
    assert records.get("9", 1000.0) is not None


def share(*fleets: Fleet) -> None:
    """What the workflow does with the engines' batches: the memo of each has the breaks of all."""
    breaks = [each for fleet in fleets for each in fleet.endpoint.broken_requests.unshared(())]
    for fleet in fleets:
        memo = fleet.endpoint.memo.model_copy(update={"b": tuple(breaks)})
        fleet.endpoint.apply(memo, fleet.now)


def test_breaks_that_two_engines_saw_count_together() -> None:
    one, two = Fleet("a", "b", "c", "d"), Fleet("a", "b", "c", "d")
    first = on(one.send(POISON))
    one.breaks(first)
    share(one, two)
    request = two.send(POISON)
    assert on(request) not in ("", first), "it goes to a worker that did not break with it"
    two.breaks(on(request))
    share(one, two)
    assert one.send(POISON).refusal
    assert two.send(POISON).refusal


def test_one_break_that_two_engines_saw_is_one() -> None:
    one, two = Fleet("a", "b"), Fleet("a", "b")
    first = on(one.send(POISON))
    while on(request := two.send(POISON)) != first:
        assert on(request), "no worker is left"
    one.breaks(first)
    two.now += 2  # it read the error in the memo
    two.breaks(first)
    share(one, two)
    assert not two.send(POISON).refusal


def test_a_request_that_was_served_since_is_not_refused_for_an_old_break() -> None:
    fleet, other = Fleet("a", "b", "c"), Fleet("a", "b", "c")
    fleet.breaks(on(fleet.send(POISON)))
    share(fleet, other)
    request = fleet.send(POISON)
    fleet.dispatcher.request_finished(
        fleet.endpoint, fleet.worker(on(request)), request.request_idx, success=True, now=fleet.now + 1
    )
    fleet.endpoint.apply(fleet.endpoint.memo, fleet.now + 1)  # the memo still has the break
    assert len(fleet.endpoint.broken_requests) == 0


def test_a_request_without_a_fingerprint_is_identified_by_the_worker() -> None:
    fleet = Fleet("a", "b", "c")
    for _ in range(2):
        request = fleet.send()
        launch_id = on(request)
        fleet.dispatcher.request_finished(
            fleet.endpoint,
            fleet.worker(launch_id),
            request.request_idx,
            success=False,
            now=fleet.now,
            status="Error",
            fingerprint=POISON,
        )
        fleet.dispatcher.worker_broke(
            fleet.endpoint, fleet.worker(launch_id), (), "died", fleet.now, reports_ends=True
        )
        fleet.report(launch_id, error_msg="died")
        fleet.now += 1
    assert fleet.endpoint.broken_requests.refused(fleet.now) == (POISON,)


def test_workers_that_never_got_the_request_are_no_evidence_against_it() -> None:
    fleet = Fleet("a", "b", "c", "d")
    request = fleet.send(POISON)
    for _ in range(3):
        fleet.now += 2
        fleet.send(again=request, unread=True)
        assert on(request), "it waits for no verdict"
    for _ in range(60):  # the others have gone: their reports stop
        fleet.passes(1, on(request))
    assert not request.refusal
    assert len(fleet.endpoint.broken_requests) == 0


@pytest.mark.parametrize("fingerprint", [POISON, ""])
def test_a_workers_report_of_a_failed_request_outweighs_a_client_that_calls_it_unread(
    fingerprint: str,
) -> None:
    fleet = Fleet("a", "b", "c", "d")
    request = fleet.send(fingerprint)
    for _ in range(2):
        worker = fleet.worker(on(request))
        fleet.now += 2
        fleet.send(fingerprint, again=request, unread=True)  # before the worker's reports arrive
        fleet.dispatcher.request_finished(
            fleet.endpoint,
            worker,
            request.request_idx,
            success=False,
            now=fleet.now,
            status="Error",
            fingerprint=POISON,
        )
        fleet.dispatcher.worker_broke(fleet.endpoint, worker, (), "died", fleet.now, reports_ends=True)
        fleet.report(worker.launch_id, error_msg="died")
    assert fleet.endpoint.broken_requests.refused(fleet.now) == (POISON,)
    assert fleet.send(fingerprint, again=request, unread=True).refusal


def test_a_request_that_its_worker_has_reported_is_not_unread() -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    for _ in range(2):
        worker = fleet.worker(on(request))
        fleet.report(worker.launch_id, working=(request.request_idx,))
        fleet.now += 2
        fleet.send(POISON, again=request, unread=True)
        fleet.breaks(worker.launch_id)  # it reports no end
    assert request.refusal


@pytest.mark.parametrize("status", ["Rejected", "Success"])
def test_a_report_without_a_failure_about_an_unread_request_is_no_evidence(status: str) -> None:
    fleet = Fleet("a", "b", "c")
    request = fleet.send(POISON)
    first = fleet.worker(on(request))
    fleet.send(POISON, again=request, unread=True)
    fleet.dispatcher.request_finished(
        fleet.endpoint, first, request.request_idx, success=status == "Success", now=fleet.now, status=status
    )
    fleet.breaks(first.launch_id)
    assert len(fleet.endpoint.broken_requests) == 0
