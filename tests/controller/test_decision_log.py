"""The decision log is bounded and does not repeat itself."""

import pytest

from controller.decision_log import LINES_KEPT, DecisionLog
from stoker_wire.parsing.limits import DECISION_REASON_BYTES_MAX, DECISION_SUBJECT_BYTES_MAX

LINE = {"kind": "wait", "reason": "no offers", "subject": "endpoint", "level": 1}


@pytest.mark.parametrize("change", [{}, {"workergroup_id": 4}, {"numbers": {"load": 2.0}}])
def test_a_repeated_line_updates_its_time_and_numbers(change):
    log = DecisionLog()
    log.note(1.0, **LINE)
    log.note(2.0, **LINE | change)
    (line,) = log.lines
    assert line.at == 2.0
    assert line.numbers == change.get("numbers", {})
    assert line.workergroup_id == change.get("workergroup_id", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "fail"},
        {"reason": "no offers of 2 GPUs"},
        {"subject": "1"},
        {"level": 0},
        {"level": 2},
        {"kind": "aaa", "reason": "a", "subject": "a", "level": 0},
    ],
)
def test_a_line_that_differs_is_added(change):
    log = DecisionLog()
    log.note(1.0, **LINE)
    log.note(2.0, **LINE | change)
    assert [line.at for line in log.lines] == [1.0, 2.0]


def test_only_the_last_lines_are_kept():
    log = DecisionLog()
    for number in range(LINES_KEPT + 2):
        log.note(float(number), "worker", f"line {number}")
    assert [line.at for line in log.lines] == [float(number) for number in range(2, LINES_KEPT + 2)]
    again = DecisionLog([*log.lines, *log.lines])
    assert again.lines == log.lines


def test_the_tail_are_the_last_lines_of_a_level():
    log = DecisionLog()
    for number in range(4):
        log.note(float(number), "worker", f"line {number}", level=number)
    assert [line.level for line in log.tail(2)] == [2, 3], "up to level 3 without being asked"
    assert [line.level for line in log.tail(2, level_max=1)] == [0, 1]
    assert log.tail(0) == log.tail(-1) == []


def test_long_texts_are_shortened():
    log = DecisionLog()
    log.note(1.0, "worker", "r" * 10_000, subject="s" * 10_000)
    (line,) = log.lines
    assert len(line.reason.encode()) <= DECISION_REASON_BYTES_MAX
    assert len(line.subject.encode()) <= DECISION_SUBJECT_BYTES_MAX
