"""Numbers, times and texts as the command prints them."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.cli.output import Terminal, cell, format_number, format_seconds, format_time, make_table, shorten


@pytest.mark.parametrize("at", [None, "soon", float("nan"), float("inf"), -1e300, 253402300800.0, 10**400])
def test_a_value_that_is_no_time_is_a_dash(at):
    assert format_time(at) == "-"


def test_a_time_is_printed_in_utc():
    assert format_time(0) == "1970-01-01 00:00:00"
    assert format_time(86_399.9) == "1970-01-01 23:59:59"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (719_480_000.0, "719480000"),
        (1e6, "1000000"),
        (457.0, "457"),
        (8.5, "8.5"),
        (0.31, "0.31"),
        (0.00004, "0"),
        (0.0, "0"),
        (-2.5, "-2.5"),
        (7, "7"),
        (float("nan"), "nan"),
        (10**400, "1e+300"),
    ],
)
def test_numbers_are_printed_without_exponents(value, text):
    assert format_number(value) == text


@given(st.floats(-1e14, 1e14))
def test_no_number_of_usual_size_has_an_exponent_and_four_digits_are_kept(value):
    text = format_number(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=5e-3, abs=5e-5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (300.0, "5 min"),
        (7200.0, "2 h"),
        (1e6, "12 d"),
        (None, "-"),
    ],
)
def test_durations_have_a_unit_that_fits_their_size(seconds, text):
    assert format_seconds(seconds) == text


def test_a_text_is_cut_between_words():
    assert shorten("the worker loads its model", 100) == "the worker loads its model"
    assert shorten("the worker loads its model", 18) == "the worker loads …"


def test_cells_have_no_python_values():
    assert [cell(value) for value in (None, "", True, False, 1.0, "text")] == [
        "-",
        "-",
        "yes",
        "no",
        "1",
        "text",
    ]


ENDPOINTS = make_table(["endpoint", "hot load/s", "reason"], [["llm", 719_480_000.0, "no load " * 10]])


def drawn(table, width: int) -> list[str]:
    file = io.StringIO()
    Terminal(file=file, width=width, highlight=False).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_table_that_fits_wraps_its_long_cells_only():
    lines = drawn(ENDPOINTS, 60)
    assert lines[0].split() == ["endpoint", "hot", "load/s", "reason"]
    assert lines[1].startswith("llm        719480000  no load")


@pytest.mark.parametrize("width", [22, 40])
def test_on_a_narrow_terminal_each_row_is_a_block_of_named_values(width):
    lines = drawn(ENDPOINTS, width)
    assert lines[:2] == ["endpoint: llm", "hot load/s: 719480000"]
    assert lines[2].startswith("reason: no load")
    assert max(map(len, lines)) <= width


def test_on_a_narrow_terminal_the_first_of_two_columns_names_the_second():
    costs = make_table(["spent", "dollars"], [["billed beyond that by the marketplace", 0.5], ["idle", 1.0]])
    assert drawn(costs, 20) == [
        "spent: dollars", "billed beyond that", "by the marketplace:", "0.5", "idle: 1"
    ]  # fmt: skip


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help"])
def test_output_that_cannot_be_written_is_one_sentence_and_no_success(command, unbuffered):
    words = [sys.executable, "-c", "import stoker.cli; stoker.cli.main()", command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            words,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (
        1,
        "stoker: cannot write the output: No space left on device; free some space for it\n",
    )
