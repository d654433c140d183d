"""Deadline-aware FIFO: late requests yield to requests that can still meet their target."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.routing.queue_discipline import DeadlineQueue, late_cutoff, worker_wait_seconds
from policy.tuning import DEFAULT_TUNING


@dataclass(frozen=True)
class Request:
    number: int
    arrived: float
    retried: bool = False
    """Its worker failed."""


def queue_of(*requests: Request) -> DeadlineQueue[Request]:
    made: DeadlineQueue[Request] = DeadlineQueue(lambda one: (not one.retried, one.arrived, one.number))
    for one in requests:
        made.add(one)
    return made


def numbers(queue: DeadlineQueue[Request], late: float) -> list[int]:
    return [one.number for one in queue.in_service_order(late)]


def test_without_late_requests_the_order_is_fifo():
    queue = queue_of(Request(3, 3.0), Request(1, 1.0), Request(2, 2.0))
    assert numbers(queue, late=0.0) == [1, 2, 3]


def test_late_requests_yield_and_keep_their_order_among_themselves():
    queue = queue_of(*(Request(n, float(n)) for n in range(6)))
    assert numbers(queue, late=3.5) == [4, 5, 0, 1, 2, 3]


def test_retried_requests_go_before_all_others():
    queue = queue_of(
        Request(1, 1.0), Request(2, 2.0), Request(0, 0.0, retried=True), Request(9, 9.0, retried=True)
    )
    assert numbers(queue, late=1.5) == [0, 9, 2, 1]


def test_one_request_in_ten_is_the_oldest_late_one():
    queue = queue_of(*(Request(n, float(n)) for n in range(40)))
    served = []
    while queue:
        one = next(queue.in_service_order(9.5))
        queue.serve(one, 9.5)
        served.append(one.number)
    # 0 to 9 are late, the others are on time
    assert [served.index(n) for n in range(3)] == [
        DEFAULT_TUNING.overtakes_max,
        2 * DEFAULT_TUNING.overtakes_max + 1,
        3 * DEFAULT_TUNING.overtakes_max + 2,
    ]
    assert served[3 * (DEFAULT_TUNING.overtakes_max + 1) :] == [37, 38, 39, 3, 4, 5, 6, 7, 8, 9]


def test_overtakes_are_not_counted_while_no_request_is_late():
    queue = queue_of(*(Request(n, float(n)) for n in range(30)))
    for _ in range(20):
        queue.serve(next(queue.in_service_order(-1.0)), -1.0)
    assert numbers(queue, late=24.5)[:2] == [25, 26]


def test_the_target_is_split_between_the_queue_and_the_worker():
    assert 100.0 - late_cutoff(100.0, 10.0) + worker_wait_seconds(10.0) == pytest.approx(10.0)


any_requests = st.lists(
    st.builds(Request, st.integers(0, 1000), st.floats(0.0, 100.0), st.booleans()),
    unique_by=lambda one: one.number,
    max_size=30,
)


@given(any_requests, st.floats(-1.0, 101.0))
def test_every_request_is_in_the_order_at_its_position(requests: list[Request], late: float):
    queue = queue_of(*requests)
    order = list(queue.in_service_order(late))
    assert sorted(one.number for one in order) == sorted(one.number for one in requests)
    assert [queue.position(one, late) for one in order] == list(range(len(requests)))
    oldest = queue.oldest
    assert (oldest.arrived if oldest else None) == min((one.arrived for one in requests), default=None)


@given(any_requests, st.floats(0.0, 100.0), st.data())
def test_removing_a_request_removes_only_this_one(requests: list[Request], late: float, data: st.DataObject):
    queue = queue_of(*requests)
    left = list(requests)
    while left:
        one = data.draw(st.sampled_from(left))
        (queue.remove if data.draw(st.booleans()) else lambda each: queue.serve(each, late))(one)
        left.remove(one)
        assert sorted(each.number for each in queue) == sorted(each.number for each in left)
    queue.remove(Request(-1, 0.0))
    assert not queue


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60), st.integers(1, 8))
def test_a_late_request_is_passed_over_nine_times_for_itself_and_for_each_late_one_before_it(
    steps: list[tuple[int, int]], target: int
):
    """`steps`: requests that arrive in each second, and requests that are served in it."""
    queue, bound, passed, number = queue_of(), dict[int, int](), dict[int, int](), 0
    for second, (arriving, served) in enumerate(steps):
        for _ in range(arriving):
            number += 1
            queue.add(Request(number, float(second)))
        cutoff = second - target - 0.5
        for before, one in enumerate(each for each in queue if each.arrived < cutoff):
            bound.setdefault(one.number, DEFAULT_TUNING.overtakes_max * (before + 1))
        for _ in range(min(served, len(queue))):
            one = next(queue.in_service_order(cutoff))
            queue.serve(one, cutoff)
            assert passed.get(one.number, 0) <= bound.get(one.number, 0)
            for other in queue:
                if other.number < one.number and other.number in bound:
                    passed[other.number] = passed.get(other.number, 0) + 1
        assert all(passed.get(each.number, 0) <= bound.get(each.number, 0) for each in queue)
