"""Prefetch: when workers that run one request at a time get their next request."""

import pytest

from engine.routing.endpoint import Endpoint
from engine.routing.requests.request_queue import QueuedRequest
from tests.engine.routing.test_dispatcher import World


class Serial(World):
    """Workers of perf 10 that report their progress; requests of 100 take the declared 10 s."""

    def __init__(self, **config: float) -> None:
        super().__init__(**config)
        for _ in range(4000):
            self.endpoint.service_times.learn(100.0, 10.0, 10.0)

    def at(self, launch_id: str, load: float = 0.0, seconds: float = 0.0, queued: float = 0.0) -> None:
        """The worker reports a running request, its running time and the load queued behind it."""
        self.report(
            launch_id,
            load + queued,
            running_load=load,
            running_seconds=seconds,
            end_report_seconds=0.5,
        )

    def show(self, launch_id: str, request: QueuedRequest, seconds: float = 0.0) -> None:
        """The worker reports that the request runs."""
        self.report(
            launch_id,
            request.cost,
            (request.request_idx,),
            running_load=request.cost,
            running_seconds=seconds,
            end_report_seconds=0.5,
        )

    def queue(self, launch_id: str) -> float:
        (found,) = (each for each in self.endpoint.candidates if each.launch_id == launch_id)
        return found.queue_seconds(self.now)


def serial(*launch_ids: str, **config: float) -> Serial:
    world = Serial(**config)
    world.members(*launch_ids)
    for launch_id in launch_ids:
        world.at(launch_id)
    return world


def test_a_request_is_held_until_a_worker_is_nearly_free() -> None:
    world = serial("a", "b")
    first, second = world.ask(), world.ask()
    assert first.worker is not second.worker
    assert second.worker is not None
    third = world.ask(cost=300.0)
    assert third.worker is None
    # 10 s of work on each; prefetch starts when 1 s is left, a tenth of the mean, plus 1 s for delayed reports
    assert 5.0 < world.later[-1] < 9.0

    world.now += world.later[-1] + 0.01
    world.dispatcher.serve_queue(world.endpoint, world.now)
    assert third.worker is not None


def test_the_first_free_worker_gets_the_first_request() -> None:
    world = serial("a", "b")
    first, second = world.ask(), world.ask()
    third = world.ask(cost=300.0)
    assert second.worker is not None
    world.now += 2.0
    world.at(second.worker.launch_id)  # idle much earlier than declared
    world.dispatcher.request_finished(
        world.endpoint, second.worker, second.request_idx, success=True, now=world.now
    )
    world.dispatcher.serve_queue(world.endpoint, world.now)
    assert third.worker is second.worker
    assert world.ask(cost=300.0).worker is None
    assert first.worker is not third.worker


def test_the_progress_of_a_running_request_counts() -> None:
    world = serial("a", "b")
    world.at("a", load=100.0, seconds=8.0)
    world.at("b", load=100.0, seconds=1.0)
    assert world.queue("a") == pytest.approx(2.0, abs=0.8)
    assert world.queue("b") == pytest.approx(9.0, abs=0.8)
    world.now += 1.0
    assert world.queue("b") == pytest.approx(8.0, abs=0.8)


def test_an_overdue_worker_does_not_count_as_free() -> None:
    world = serial("a")
    world.at("a", load=100.0)
    world.now += 15.0
    assert world.queue("a") > 1.0
    assert world.ask(cost=300.0).worker is None


def test_load_from_other_engines_counts() -> None:
    world = serial("a")
    world.at("a", load=100.0, seconds=0.0, queued=200.0)
    assert world.queue("a") == pytest.approx(30.0, abs=2.0)


def test_an_assigned_request_counts_before_it_is_reported() -> None:
    world = serial("a")
    request = world.ask()
    assert request.worker is not None
    assert world.queue("a") == pytest.approx(10.0, abs=0.8)
    world.now += 4.0
    assert world.queue("a") == pytest.approx(6.0, abs=0.8)
    world.show("a", request, seconds=4.0)
    assert world.queue("a") == pytest.approx(6.0, abs=0.8)


def test_a_worker_that_reports_no_progress_gets_requests_without_prefetch_limits() -> None:
    world = serial("a")
    world.members("a", "official")
    world.report("official")
    places = [world.ask() for _ in range(5)]
    assert all(request.worker is not None for request in places)


def test_no_request_is_held_back_before_service_times_are_known() -> None:
    world = World()
    world.members("a")
    world.report("a", end_report_seconds=0.5)
    assert [world.ask().worker is not None for _ in range(3)] == [True, True, True]


def test_max_queue_time_bounds_the_queue_of_a_worker() -> None:
    world = serial("a", max_queue_time=5.0)
    world.at("a", load=100.0, seconds=0.0)
    for _ in range(50):
        world.ask()  # a long queue would prefetch early
    assert world.queue("a") < 11.0


def test_service_times_are_learned_from_workers() -> None:
    world = serial("a")
    endpoint: Endpoint = world.endpoint
    before = endpoint.service_times.count
    request = world.ask()
    assert request.worker is not None
    world.show("a", request)
    world.dispatcher.request_finished(
        endpoint, request.worker, request.request_idx, success=True, now=world.now, busy_seconds=20.0
    )
    assert endpoint.service_times.count == before + 1


def test_a_failed_request_does_not_change_service_times() -> None:
    world = serial("a")
    before = world.endpoint.service_times.count
    request = world.ask()
    assert request.worker is not None
    world.dispatcher.request_finished(
        world.endpoint, request.worker, request.request_idx, success=False, now=world.now, busy_seconds=0.1
    )
    assert world.endpoint.service_times.count == before
