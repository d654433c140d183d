"""`stokerd init` writes settings that the other commands accept."""

import pytest
from typer.testing import CliRunner

from run.cli import app
from run.commands.init import write_settings
from run.errors import CommandError
from run.packaged_files import DEFAULT_SETTINGS
from run.settings import load_settings


def test_settings_for_the_real_marketplace_have_its_address_and_nothing_of_this_machine(tmp_path):
    path = tmp_path / "temporal-dev.yaml"
    said = write_settings(path, "vast", public_url="https://engine.example.org")
    settings = load_settings(path)
    assert (settings.market.kind, settings.market.calls_per_second_max) == ("vast", 1)
    assert settings.engine.url == "https://engine.example.org"
    assert settings.engine.host == "127.0.0.1"
    assert (settings.host_market.machines, settings.host_market.templates) == ((), ())
    assert said[-1].strip() == "stokerd dev"


def test_settings_for_this_machine_are_the_packaged_ones(tmp_path):
    path = tmp_path / "mine.yaml"
    assert write_settings(path, "hosts", public_url=None)[-1] == f"next: stokerd dev --config {path}"
    assert path.read_text() == DEFAULT_SETTINGS.read_text()


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "temporal-dev.yaml"
    path.write_text("state_dir: mine\n")
    with pytest.raises(CommandError, match="exists; move it away"):
        write_settings(path, "hosts", public_url=None)
    assert path.read_text() == "state_dir: mine\n"


def test_an_unknown_marketplace_is_refused_with_the_known_ones(tmp_path):
    done = CliRunner().invoke(app, ["init", "--market", "nope", "--config", str(tmp_path / "x.yaml")])
    said = " ".join(done.stderr.replace("│", " ").split())
    assert (done.exit_code, "Value error" in said) == (2, False)
    assert "Invalid value for '--market': 'nope' is not one of 'hosts', 'vast'" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "--public-url is required"),
        ("engine.example.org", "should be https://host"),
        ("https://engine.example.org/", "without a trailing slash"),
        ("http://127.0.0.1:8080", "cannot reach http://127.0.0.1:8080"),
    ],
)
def test_an_address_that_rented_machines_cannot_use_is_refused(tmp_path, url, said):
    with pytest.raises(CommandError, match=said):
        write_settings(tmp_path / "x.yaml", "vast", public_url=url)
    assert not (tmp_path / "x.yaml").exists()
