"""Whose turn it is: in order, unless somebody is late; then those pass who can still be served in time."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.routing.queue_discipline import PASSED_MAX, QueueDiscipline, late_before, worker_seconds


@dataclass(frozen=True)
class One:
    number: int
    came: float
    back: bool = False
    """Its worker failed it."""


def turns(*ones: One) -> QueueDiscipline[One]:
    made: QueueDiscipline[One] = QueueDiscipline(lambda one: (not one.back, one.came, one.number))
    for one in ones:
        made.add(one)
    return made


def numbers(line: QueueDiscipline[One], late: float) -> list[int]:
    return [one.number for one in line.in_turn(late)]


def test_nobody_late_means_first_come_first_served():
    line = turns(One(3, 3.0), One(1, 1.0), One(2, 2.0))
    assert numbers(line, late=0.0) == [1, 2, 3]


def test_the_late_let_the_others_pass_and_keep_their_order_among_themselves():
    line = turns(*(One(n, float(n)) for n in range(6)))
    assert numbers(line, late=3.5) == [4, 5, 0, 1, 2, 3]


def test_who_was_failed_by_a_worker_goes_before_all_others():
    line = turns(One(1, 1.0), One(2, 2.0), One(0, 0.0, back=True), One(9, 9.0, back=True))
    assert numbers(line, late=1.5) == [0, 9, 2, 1]


def test_one_turn_in_ten_is_that_of_who_has_waited_longest():
    line = turns(*(One(n, float(n)) for n in range(40)))
    served = []
    while line:
        one = next(line.in_turn(9.5))
        line.serve(one, 9.5)
        served.append(one.number)
    # 0 to 9 are late, the others are not
    assert [served.index(n) for n in range(3)] == [PASSED_MAX, 2 * PASSED_MAX + 1, 3 * PASSED_MAX + 2]
    assert served[3 * (PASSED_MAX + 1) :] == [37, 38, 39, 3, 4, 5, 6, 7, 8, 9]


def test_turns_are_not_counted_while_nobody_is_late():
    line = turns(*(One(n, float(n)) for n in range(30)))
    for _ in range(20):
        line.serve(next(line.in_turn(-1.0)), -1.0)
    assert numbers(line, late=24.5)[:2] == [25, 26]


def test_the_target_is_shared_between_the_line_and_the_worker():
    assert 100.0 - late_before(100.0, 10.0) + worker_seconds(10.0) == pytest.approx(10.0)


everybody = st.lists(
    st.builds(One, st.integers(0, 1000), st.floats(0.0, 100.0), st.booleans()),
    unique_by=lambda one: one.number,
    max_size=30,
)


@given(everybody, st.floats(-1.0, 101.0))
def test_everybody_has_a_turn_and_a_position_that_says_which(ones: list[One], late: float):
    line = turns(*ones)
    order = list(line.in_turn(late))
    assert sorted(one.number for one in order) == sorted(one.number for one in ones)
    assert [line.position(one, late) for one in order] == list(range(len(ones)))
    oldest = line.oldest
    assert (oldest.came if oldest else None) == min((one.came for one in ones), default=None)


@given(everybody, st.floats(0.0, 100.0), st.data())
def test_whoever_leaves_is_gone_and_nobody_else(ones: list[One], late: float, data: st.DataObject):
    line = turns(*ones)
    left = list(ones)
    while left:
        one = data.draw(st.sampled_from(left))
        (line.remove if data.draw(st.booleans()) else lambda each: line.serve(each, late))(one)
        left.remove(one)
        assert sorted(each.number for each in line) == sorted(each.number for each in left)
    line.remove(One(-1, 0.0))
    assert not line
