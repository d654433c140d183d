"""The words that the shell's completion offers: names of endpoints, presets and words of options."""

import pytest
import typer
from typer.testing import CliRunner

from run.cli import app as stokerd
from stoker.cli.app import app
from tests.sdk.cli.test_overview import ROW, answers, overview
from tests.sdk.peers import ACCOUNT_KEY


def completed(words: str, url: str) -> list[str]:
    environ = {
        "_STOKER_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "STOKER_URL": url,
        "STOKER_API_KEY": ACCOUNT_KEY,
        "STOKER_CONFIG": "/nonexistent",
    }
    done = CliRunner().invoke(app, [], env=environ, prog_name="stoker")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("stoker costs l", ["llm"]),
        ("stoker workers list ", ["llm", "image"]),
        ("stoker logs x", []),
        ("stoker endpoints update llm --state s", ["suspended", "stopped"]),
        ("stoker up vl", ["vllm"]),
        ("stoker workers reboot llm 4", ["41"]),
        ("stoker logs llm --worker ", ["41"]),
        ("stoker workers reboot llm 8", []),
    ],
)
def test_names_and_values_are_offered(peers, words, offered):
    answers(peers, overview(ROW, ROW | {"name": "image"}))
    assert completed(words, peers.url) == offered


def test_without_an_engine_nothing_is_offered_and_nothing_printed():
    assert completed("stoker costs l", "http://127.0.0.1:1") == []


@pytest.mark.parametrize("tree", [app, stokerd], ids=["stoker", "stokerd"])
def test_every_command_takes_h_and_names_its_arguments_in_capitals(tree):
    def check(command, words):
        shown = CliRunner().invoke(tree, [*words, "-h"])
        assert shown.exit_code == 0, words
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                metavar = parameter.metavar or ""
                assert metavar == metavar.upper(), (words, metavar)
                assert metavar, words
        for name, inner in getattr(command, "commands", {}).items():
            check(inner, [*words, name])

    check(typer.main.get_command(tree), [])
