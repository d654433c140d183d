"""Numeric options of both command lines are read strictly."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from run.cli import app as stokerd
from stoker.cli.app import app as stoker
from stoker.cli.numbers import numeric_parameters

ODD = ("1_0", "nan", "inf", "-inf", "+5", " 5", "٣", "1e999", "0x10", "")


def numeric(app: typer.Typer) -> list[tuple[list[str], Any]]:
    """The words of each command, and each of its numeric parameters."""

    def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
        for parameter, _ in numeric_parameters(command):
            yield words, parameter
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*words, name])

    return list(walk(typer.main.get_command(app), []))


@pytest.mark.parametrize(("app", "least"), [(stoker, 30), (stokerd, 5)], ids=["stoker", "stokerd"])
def test_no_numeric_parameter_takes_a_number_that_others_read_differently(
    app: typer.Typer, least: int
) -> None:
    found = numeric(app)
    assert len(found) >= least, "the command tree was not read"
    context = typer.Context(typer.main.get_command(app))
    for words, parameter in found:
        for text in ODD:
            for value in (text, [text]) if parameter.nargs == -1 else (text,):
                with pytest.raises(typer.BadParameter, match=r"expected a (whole )?number, e\.g\. 12"):
                    pytest.fail(f"{words} {parameter.name}: {parameter.process_value(context, value)}")


def test_a_number_with_too_many_digits_is_refused_with_the_possible_count() -> None:
    done = CliRunner().invoke(stoker, ["decisions", "llm", "--tail", "9" * 19])
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "expected a whole number of at most 18 digits, not '9999999999999999999'" in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["endpoints", "create", "llm", "--max-workers"], "1_0"),
        (["endpoints", "create", "llm", "--min-load"], "nan"),
        (["endpoints", "rotate-key", "llm", "--overlap"], "inf"),
        (["watch", "llm", "--interval"], "nan"),
    ],
)
def test_the_command_says_what_it_expected(words: list[str], text: str) -> None:
    shown = CliRunner().invoke(stoker, [*words, text], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert f"not '{text}'" in shown.output


def test_plain_numbers_are_taken() -> None:
    for text in ("7", "-7", "0.5", ".5", "1e3"):
        shown = CliRunner().invoke(
            stoker, ["endpoints", "update", "llm", f"--inactivity-timeout={text}"], env={"STOKER_URL": "none"}
        )
        assert "expected a" not in shown.output
