"""The dispatcher and the request queue: pure, with a given time."""

import itertools

import pytest

from engine.api.parsing import FastRouteRequest
from engine.request_log import Outcome
from engine.routing.dispatcher import Dispatcher
from engine.routing.endpoint import Endpoint
from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.worker import KnownWorker
from engine.settings import Limits, Timing
from engine.temporal.signal_sender import SignalSender
from stoker_wire.messages import EndpointMemo, Member
from stoker_wire.states import WorkerState
from stoker_wire.worker_status import WorkerStatus

TIMING = Timing()


class World:
    """One endpoint, its dispatcher, and a clock that the test advances."""

    def __init__(self, *, limits: Limits | None = None, **config: float) -> None:
        self.limits = limits or Limits()
        self.now = 1000.0
        numbers = itertools.count(1)
        self.urgent_causes: list[str] = []
        self.later: list[float] = []
        self.ended: list[tuple[QueuedRequest, Outcome]] = []
        self.dispatcher = Dispatcher(
            limits=self.limits,
            timing=TIMING,
            started_at=0.0,
            draw=lambda: next(numbers),
            on_urgent=lambda e: self.urgent_causes.append(e.metrics_batcher.due(e.gauges(), self.now) or ""),
            on_later=lambda _, seconds: self.later.append(seconds),
            on_ended=lambda _, request, outcome: self.ended.append((request, outcome)),
        )
        self.config = config
        self.endpoint = Endpoint(
            self._memo(()), secrets=(b"x" * 32,), timing=TIMING, limits=self.limits, now=self.now
        )
        self.woken: dict[int, bool] = {}

    def _memo(self, members: tuple[Member, ...]) -> EndpointMemo:
        return EndpointMemo(
            id=1, name="llm", members=members, config=self.config, groups=(1,), changed_at=self.now
        )

    def members(self, *launch_ids: str, state: WorkerState = WorkerState.READY, **changes: object) -> None:
        made = tuple(
            Member(l=launch_id, i=n + 1, g=1, s=state, t=self.now, **changes)
            for n, launch_id in enumerate(launch_ids)
        )
        self.endpoint.apply(self._memo(made), self.now)
        self.dispatcher.refresh(self.endpoint, self.now)

    def report(
        self, launch_id: str, load: float = 0.0, working: tuple[int, ...] = (), **changes: object
    ) -> None:
        worker = self.endpoint.worker(launch_id)
        assert worker is not None
        status = WorkerStatus(
            id=1, loadtime=1.0, max_perf=10.0, cur_load=load, working_request_idxs=working
        ).model_copy(update=changes)
        worker.apply_report(status, f"http://{launch_id}:1", self.now)
        self.dispatcher.refresh(self.endpoint, self.now)

    def ready(self, *launch_ids: str) -> None:
        self.members(*launch_ids)
        for launch_id in launch_ids:
            self.report(launch_id)

    def ask(
        self, request_idx: int = 0, *, cost: float = 100.0, failed_url: str = "", hold: bool = True
    ) -> QueuedRequest:
        asked = FastRouteRequest("llm", cost=cost, request_idx=request_idx, failed_url=failed_url)
        request = self.dispatcher.route(self.endpoint, asked, self.now)
        if hold and request.worker is None and not request.turned_away:
            self.hold(request)
        return request

    def hold(self, request: QueuedRequest) -> None:
        def wake(given: bool) -> None:
            self.woken[request.request_idx] = given

        self.dispatcher.hold(self.endpoint, request, wake, self.now)

    def end_hold(self, request: QueuedRequest) -> None:
        self.dispatcher.end_call(self.endpoint, request, self.now)

    def position(self, request: QueuedRequest) -> int:
        return self.endpoint.request_queue.position(request, self.endpoint.late_cutoff(self.now))

    def worker(self, launch_id: str) -> KnownWorker:
        return self.endpoint.workers[launch_id]


def test_requests_are_served_in_the_order_of_their_first_call() -> None:
    world = World(max_queue_time=10)  # perf 10: a worker takes one request of 100 at a time
    first, second, third = world.ask(), world.ask(), world.ask()
    assert [world.position(p) for p in (first, second, third)] == [0, 1, 2]

    world.ready("a")

    assert world.woken == {first.request_idx: True}
    world.report("a", load=0)  # the request has not arrived yet: the ticket is open
    assert world.woken == {first.request_idx: True}
    world.dispatcher.request_finished(
        world.endpoint, world.worker("a"), first.request_idx, success=True, now=world.now
    )
    world.dispatcher.refresh(world.endpoint, world.now)
    assert world.woken == {first.request_idx: True, second.request_idx: True}
    assert third.worker is None


def test_a_new_request_does_not_overtake_queued_ones() -> None:
    world = World(max_queue_time=10)
    world.ready("a")
    world.ask()
    waiting = world.ask()
    world.dispatcher.request_finished(world.endpoint, world.worker("a"), 1, success=True, now=world.now)
    newcomer = world.ask()
    assert (waiting.worker is not None, newcomer.worker) == (True, None)


def test_late_requests_yield_to_requests_that_can_meet_the_target() -> None:
    world = World(max_queue_time=10, target_queue_time=10)
    late = world.ask()
    world.now += 6  # more than half of the target queue time has passed
    first, second = world.ask(), world.ask()
    assert [world.position(p) for p in (first, second, late)] == [0, 1, 2]

    for served in (first, second, late):
        world.ready("a")
        assert served.worker is world.worker("a")
        world.dispatcher.request_finished(
            world.endpoint, world.worker("a"), served.request_idx, success=True, now=world.now
        )


def test_a_rerouted_request_is_served_before_all_others() -> None:
    world = World(max_queue_time=10, target_queue_time=10)
    world.ready("a")
    failed = world.ask()
    world.now += 1
    waiting = world.ask()
    world.now += 8
    newest = world.ask()
    url = world.worker("a").route_url
    world.ask(failed.request_idx, failed_url=url)
    assert [world.position(p) for p in (failed, newest, waiting)] == [0, 1, 2]


def test_a_request_between_two_calls_keeps_its_position_without_blocking_others() -> None:
    world = World(max_queue_time=10)
    first, second = world.ask(), world.ask()
    world.end_hold(first)
    world.ready("a")
    assert (first.worker, second.worker is not None) == (None, True)

    world.now += 5
    third = world.ask()
    again = world.ask(first.request_idx)
    assert again is first
    assert [world.position(p) for p in (first, third)] == [0, 1]


def test_a_request_without_calls_expires_after_its_replay_timeout() -> None:
    world = World()
    request = world.ask()
    world.now += 100
    world.dispatcher.sweep(world.endpoint, world.now)
    assert len(world.endpoint.request_queue) == 1  # its call is still held
    world.end_hold(request)
    world.now += 60
    world.dispatcher.sweep(world.endpoint, world.now)
    assert len(world.endpoint.request_queue) == 1
    world.now += 0.1
    world.dispatcher.sweep(world.endpoint, world.now)
    assert len(world.endpoint.request_queue) == 0


def test_an_index_of_another_engine_is_accepted() -> None:
    world = World()
    assert world.ask(777).request_idx == 777


def test_a_second_call_for_the_same_request_ends_the_first() -> None:
    world = World()
    request = world.ask()
    woken: list[bool] = []
    world.dispatcher.hold(world.endpoint, request, woken.append, world.now)
    assert world.woken == {request.request_idx: False}
    world.ready("a")
    assert woken == [True]


def test_a_rerouted_request_gets_another_worker() -> None:
    world = World()
    world.ready("a", "b")
    request = world.ask()
    failed = request.worker
    world.ask(request.request_idx)
    assert request.worker is not None
    assert request.worker is not failed
    assert failed is not None
    assert failed.suspicion.since == world.now
    assert failed.outstanding.load == 0


def test_a_suspect_worker_gets_no_requests_until_it_reports() -> None:
    world = World()
    world.ready("a")
    request = world.ask()
    world.ask(request.request_idx)
    assert world.ask().worker is None
    world.report("a")
    assert request.worker is not None


def test_a_worker_that_reported_the_end_is_avoided_but_not_suspected() -> None:
    world = World()
    world.ready("a", "b")
    request = world.ask()
    failed = request.worker
    assert failed is not None
    world.dispatcher.request_finished(
        world.endpoint, failed, request.request_idx, success=False, now=world.now
    )
    world.ask(request.request_idx)
    assert failed.suspicion.since is None
    assert request.worker is not failed


def test_failed_url_makes_the_worker_suspect_at_once_and_signals_it() -> None:
    world = World()
    world.ready("a", "b")
    request = world.ask(777, failed_url="http://a:1")
    assert request.worker is world.worker("b")
    assert world.worker("a").suspicion.since == world.now
    assert any("does not answer" in alarm for alarm in world.urgent_causes)


def test_a_request_rerouted_twice_within_a_second_is_paused_until_its_workers_report() -> None:
    world = World()
    world.ready("a", "b", "c")
    request = world.ask()
    world.now += 0.01
    world.ask(request.request_idx)
    assert request.worker is not None
    world.now += 0.01
    world.ask(request.request_idx, hold=False)
    assert request.worker is None
    assert world.dispatcher.is_paused(request, world.now)
    world.now += 1.0
    world.ask(request.request_idx, hold=False)
    assert request.worker is None
    world.now += 1.0
    for worker in ("a", "b", "c"):
        world.report(worker)
    world.ask(request.request_idx)
    assert request.worker is not None


def test_a_worker_with_repeated_failures_is_excluded_despite_its_reports() -> None:
    world = World()
    world.ready("a")
    for _ in range(6):
        world.worker("a").suspicion.record_failure(world.now)
        world.report("a")
    assert world.ask().worker is None
    world.now += 5
    world.report("a")
    assert world.ask().worker is not None


def test_a_draining_worker_gets_no_new_requests_but_the_others_do() -> None:
    world = World()
    world.ready("a", "b")
    world.now += 1
    world.members("a", "b", d=True)
    assert world.ask().worker is None


def test_a_worker_is_drained_once_a_later_report_is_empty() -> None:
    world = World()
    world.ready("a")
    request = world.ask()
    world.now += 1
    world.members("a", d=True)
    worker = world.worker("a")
    world.report("a", load=100, working=(request.request_idx,), num_requests_working=1)
    assert not worker.is_drained
    world.now += 1
    world.report("a")
    assert worker.is_drained
    world.dispatcher.signal_if_drained(world.endpoint, worker, world.now)
    world.dispatcher.signal_if_drained(world.endpoint, worker, world.now)
    assert sum("holds nothing" in alarm for alarm in world.urgent_causes) == 1


@pytest.mark.parametrize(
    "state",
    [WorkerState.STOPPING, WorkerState.INACTIVE, WorkerState.DESTROYING, WorkerState.UPDATE_REBOOTING],
)
def test_a_worker_that_its_workflow_stops_is_not_routable_whatever_it_reports(state: WorkerState) -> None:
    world = World()
    world.ready("a")
    world.now += 1
    world.members("a", state=state)
    world.report("a")
    assert world.ask().worker is None


def test_a_report_from_before_a_stop_does_not_count_after_the_start() -> None:
    world = World()
    world.ready("a")
    world.now += 1
    world.members("a", state=WorkerState.INACTIVE)
    world.now += 1
    world.members("a", state=WorkerState.STARTING)
    assert world.ask().worker is None
    world.report("a")
    assert len(world.endpoint.request_queue) == 0


@pytest.mark.parametrize(
    "state",
    [
        WorkerState.STARTING,
        WorkerState.REBOOTING,
        WorkerState.UPDATE_REBOOTING,
        WorkerState.UPDATE_STARTING,
    ],
)
def test_a_ready_worker_is_sent_again_until_the_memo_agrees(
    state: WorkerState,
) -> None:
    world = World()
    world.members("a", state=state)
    world.report("a")
    endpoint = world.endpoint
    assert [w.launch_id for w in endpoint.changed_workers(world.now)] == ["a"]
    world.now += 5
    world.dispatcher.sweep(endpoint, world.now)
    assert endpoint.metrics_batcher.due(endpoint.gauges(), world.now) is not None
    assert [w.launch_id for w in endpoint.changed_workers(world.now)] == ["a"]
    world.members("a", state=WorkerState.READY)
    assert endpoint.changed_workers(world.now) == ()


def test_a_worker_that_is_ready_again_after_a_stop_is_sent_although_nothing_changed() -> None:
    world = World()
    world.ready("a")
    assert len(world.endpoint.changed_workers(world.now)) == 1
    world.now += 1
    world.members("a", state=WorkerState.INACTIVE)
    world.now += 1
    world.members("a", state=WorkerState.READY)
    world.report("a")
    assert len(world.endpoint.changed_workers(world.now)) == 1


def test_a_worker_that_stops_reporting_gets_no_requests() -> None:
    world = World()
    world.ready("a")
    world.now += TIMING.report_fresh_seconds
    world.dispatcher.sweep(world.endpoint, world.now)
    assert world.ask().worker is not None
    world.now += 0.1
    world.dispatcher.sweep(world.endpoint, world.now)
    assert world.ask().worker is None


def test_an_unlisted_worker_gets_no_requests() -> None:
    world = World()
    world.report("a")
    assert world.ask().worker is None
    world.members("a")
    assert world.endpoint.request_queue.held_count == 0


def test_a_new_engine_trusts_the_memo_for_a_while_and_then_only_reports() -> None:
    world = World()
    world.now = 10.0  # the engine started at 0
    world.members("a", u="http://a:1", p=10.0)
    request = world.ask()
    assert request.worker is not None
    assert request.worker.route_url == "http://a:1"
    world.now = TIMING.memo_trust_seconds + 0.1
    world.dispatcher.sweep(world.endpoint, world.now)
    assert world.ask().worker is None


def test_the_first_request_without_a_ready_worker_is_signalled_and_each_doubling_after_it() -> None:
    world = World()
    for _ in range(16):
        world.now += 0.2
        world.ask()
        world.endpoint.metrics_batcher.take_windows(world.endpoint.gauges(), world.now)
    assert len(world.urgent_causes) == 5  # at 1, 2, 4, 8 and 16 requests


def test_a_queue_over_target_is_signalled_and_again_each_time_it_grows_by_half() -> None:
    world = World(target_queue_time=10, max_queue_time=1000)
    world.ready("a")  # perf 10: every request of 100 is 10 s of queue
    for _ in range(8):
        world.now += 0.2
        world.ask()
        world.endpoint.metrics_batcher.take_windows(world.endpoint.gauges(), world.now)
    assert len(world.urgent_causes) == 4  # at 20, 30, 50 and 80 s


def test_a_full_queue_turns_the_newest_request_away() -> None:
    world = World(limits=Limits(queue_places_max=2))
    assert [world.ask().turned_away for _ in range(3)] == [False, False, True]
    assert len(world.endpoint.request_queue) == 2
    assert len(world.endpoint.waiting) == 2


def test_an_assignment_to_a_disconnected_client_is_withdrawn_and_the_request_keeps_its_position() -> None:
    world = World(max_queue_time=10)
    first, second = world.ask(), world.ask()
    world.ready("a")
    world.dispatcher.unassign(world.endpoint, first, world.now)
    assert (first.worker, second.worker is not None) == (None, True)
    assert world.position(first) == 0


def test_the_number_of_remembered_requests_is_bounded() -> None:
    world = World(limits=Limits(requests_known_max=10), max_queue_time=1e9)
    world.ready("a")
    for _ in range(50):
        world.ask()
    assert len(world.endpoint.assigned) == 10
    world.now += 601
    world.dispatcher.sweep(world.endpoint, world.now)
    assert len(world.endpoint.assigned) == 0


# processes


def _reports(world: World, process: str, *, age: float = 100.0, **message: object) -> None:
    """Apply a report of this process, unless it is late."""
    worker = world.worker("a")
    status = WorkerStatus(id=1, loadtime=1.0, max_perf=10.0).model_copy(
        update={"incarnation": process, "uptime_seconds": age, **message}
    )
    if not worker.is_late(status, world.now):
        worker.apply_report(status, "http://a:1", world.now)
        world.dispatcher.refresh(world.endpoint, world.now)


def test_a_new_process_has_no_requests_of_the_old_one() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    held = world.ask(cost=50.0)
    _reports(world, "a1", cur_load=50.0, num_requests_working=1, working_request_idxs=(held.request_idx,))
    worker = world.worker("a")
    assert (worker.outstanding.load, worker.report.in_flight) == (50.0, 1)
    world.now += 5
    _reports(world, "a2", age=1.0, loadtime=0.0)
    assert (worker.outstanding.load, worker.report.in_flight, worker.holds) == (0.0, 0, False)
    # the last report of the old process arrives late
    _reports(world, "a1", age=105.0, cur_load=50.0, num_requests_working=1, error_msg="dying")
    assert (worker.outstanding.load, worker.report.in_flight, worker.report.error) == (0.0, 0, "")


def test_a_request_lost_with_the_old_process_does_not_make_the_new_one_suspect() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    first, second = world.ask(), world.ask()
    world.now += 5
    _reports(world, "a2", age=1.0)
    world.ask(first.request_idx, failed_url="http://a:1", hold=False)
    world.ask(second.request_idx, hold=False)
    assert (world.worker("a").suspicion.since, world.worker("a").suspicion.failures_in_row) == (None, 0)
    third = world.ask()
    world.now += 1
    world.ask(third.request_idx, failed_url="http://a:1", hold=False)
    assert world.worker("a").suspicion.since == world.now


def test_failures_of_the_old_process_end_with_it() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    for _ in range(4):
        world.worker("a").suspicion.record_failure(world.now)
    world.now += 1
    world.members("a", state=WorkerState.REBOOTING)
    worker = world.worker("a")
    assert (worker.suspicion.since, worker.suspicion.failures_in_row, worker.suspicion.excluded_until) == (
        None,
        0,
        0.0,
    )


def test_a_success_reported_by_the_old_process_does_not_count_for_the_new_one() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    old = world.ask()
    world.now += 5
    _reports(world, "a2", age=1.0)
    worker, new = world.worker("a"), world.ask()
    worker.suspicion.record_failure(world.now)
    sent = {"success": True, "now": world.now, "earlier": True}
    world.dispatcher.request_finished(world.endpoint, worker, old.request_idx, **sent)
    assert old.finished
    assert worker.suspicion.failures_in_row == 1
    # the old process cannot end a request of the new one
    assert not world.dispatcher.request_finished(world.endpoint, worker, new.request_idx, **sent)
    assert (new.finished, worker.outstanding.tickets_open) == (False, 1)


def test_reports_of_a_stopped_worker_count_after_the_time_for_late_reports() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    world.members("a", state=WorkerState.INACTIVE)
    worker = world.worker("a")
    world.now += 30
    _reports(world, "a1", age=130.0)
    assert (worker.report.reported_at, worker.contradicts_workflow) == (0.0, False)
    world.now += 1
    _reports(world, "a1", age=131.0)
    assert (worker.report.reported_at, worker.contradicts_workflow) == (world.now, True)
    assert not worker.is_routable(world.now, TIMING, trust_memo=True)


def test_a_new_process_of_a_stopped_worker_counts_at_once() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    world.members("a", state=WorkerState.INACTIVE)
    world.now += 1
    _reports(world, "a2", age=0.5)
    assert world.worker("a").metrics().incarnation == "a2"


def test_a_suspended_engine_restarts_its_listening_time() -> None:
    world = World()
    world.ready("a")
    clock = [world.now]
    signal_sender = SignalSender(None, None, engine_id="e", now=lambda: clock[0])  # type: ignore[arg-type]
    assert signal_sender.batches(world.endpoint, "", world.now)[-1].listening_since == world.now
    for now in (world.now + 9, world.now + 18):
        assert signal_sender.batches(world.endpoint, "", now)[-1].listening_since == world.now
    assert signal_sender.batches(world.endpoint, "", world.now + 318)[-1].listening_since == world.now + 318


def test_requests_known_to_a_worker_are_counted_in_every_report() -> None:
    world = World()
    world.members("a")
    _reports(world, "a1")
    held = world.ask(cost=50.0)
    for _ in range(3):
        _reports(world, "a1", cur_load=50.0, working_request_idxs=(held.request_idx,))
        assert world.worker("a").outstanding.knows(held.request_idx)
    assert world.worker("a").outstanding.finish(held.request_idx)
    assert world.worker("a").outstanding.load == 0.0


def test_gpu_dollars_are_used_by_served_requests_in_proportion_to_their_load() -> None:
    world = World()
    world.members("a", c=3.6)  # $0.001 a second
    world.report("a")  # perf 10
    served, failed, cancelled = world.ask(cost=50.0), world.ask(cost=7.0), world.ask(cost=7.0)
    for request, sent in (
        (served, {"success": True, "status": "Success"}),
        (failed, {"success": False, "status": "Error"}),
        (cancelled, {"success": True, "status": "Cancelled"}),
    ):
        world.dispatcher.request_finished(
            world.endpoint, world.worker("a"), request.request_idx, now=world.now, **sent
        )
    assert world.endpoint.stats.gpu_dollars_used == pytest.approx(0.005)
