"""How values are written."""

import math

import pytest

from dashboard.text import dollars, duration, number, shown


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.0002, "<1 ms"),
        (0.012, "12 ms"),
        (3.4, "3.4 s"),
        (300, "5 min"),
        (7800, "2 h 10 min"),
        (90_000, "1 d 1 h"),
        (None, "\N{EN DASH}"),
        (math.inf, "\N{EN DASH}"),
    ],
)
def test_a_duration_has_the_unit_that_people_use(seconds: float | None, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "$0"),
        (0.00123, "$0.0012"),
        (4e-06, "<$0.0001"),
        (1.5, "$1.50"),
        (1234.4, "$1,234"),
        (-2, "-$2.00"),
        (None, "\N{EN DASH}"),
    ],
)
def test_dollars_have_the_digits_that_matter(value: float | None, written: str) -> None:
    assert dollars(value) == written


def test_a_number_has_three_digits() -> None:
    assert [number(value) for value in (0, 0.25, 12.34, 1540.4)] == ["0", "0.25", "12.3", "1,540"]


def test_control_and_direction_characters_are_written_as_escapes() -> None:
    assert shown("a\x1b[31m\u202eb") == "a\\x1b[31m\\u202eb"
