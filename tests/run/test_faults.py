"""What is wrong with the machine or the settings ends a role with one sentence and an exit code, never with a traceback."""

import errno
import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from run.cli import _faults, app
from run.keys import load_keys
from run.lock import free_port


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Each role of this file ends before it serves; what it would set for its whole process stays as it is."""
    monkeypatch.setattr("run.cli.configure_logs", lambda **_: None)
    monkeypatch.setattr("run.cli.os.umask", lambda _: 0)
    for name in ("STOKER_MARKET_KEY", "VAST_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def ended(tmp_path: Path, role: str, **settings: object):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"state_dir": str(tmp_path / "state")} | settings))
    return CliRunner().invoke(app, [role, "--config", str(path)])


def ports() -> dict[str, object]:
    return {
        "temporal": {"port": free_port(), "ui_port": None},
        "engine": {"port": free_port()},
        "host_market": {"port": free_port()},
    }


def test_a_port_that_is_taken_is_named_by_the_market_with_its_setting_before_anything_is_begun(tmp_path):
    load_keys(tmp_path / "state", generate=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ended(tmp_path, "market", host_market={"port": port})
    assert (done.exit_code, f"port {port} on 127.0.0.1 is in use" in done.stderr) == (3, True), done.stderr
    assert "change host_market.port" in done.stderr
    assert not (tmp_path / "state" / "market").exists()


def test_a_key_of_the_market_that_cannot_be_one_is_named_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("STOKER_MARKET_KEY", "canary")
    done = ended(tmp_path, "market", host_market={"port": free_port()})
    assert (done.exit_code, "at least 8 characters" in done.stderr) == (2, True), done.stderr
    assert "STOKER_MARKET_KEY" in done.stderr
    assert "canary" not in done.stderr


def test_a_file_where_the_market_wants_its_folder_is_named(tmp_path):
    load_keys(tmp_path / "state", generate=True)
    (tmp_path / "state" / "market").touch()
    done = ended(tmp_path, "market", host_market={"port": free_port()})
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1), done.stderr
    assert f"cannot use {tmp_path / 'state' / 'market'}: " in done.stderr


@pytest.mark.parametrize("name", ["logs", "stokerd.lock"])
def test_what_stands_where_a_deployment_writes_is_named(tmp_path, name):
    load_keys(tmp_path / "state", generate=True)
    path = tmp_path / "state" / name
    if name == "logs":
        path.touch()
    else:
        path.mkdir()
    done = ended(tmp_path, "dev", **ports())
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1), done.stderr
    assert f"cannot use {path}: " in done.stderr


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/state/x"),
            "cannot use /state/x: Permission denied",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "cannot listen: Permission denied; free the port",
        ),
        (OSError(errno.EADDRINUSE, "in use"), "cannot listen: in use; free the port"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "cannot listen: unknown; give engine.host"),
    ],
)
def test_a_fault_of_the_machine_is_told_for_what_it_is(capsys, fault, said):
    with pytest.raises(SystemExit) as ended, _faults():
        raise fault
    assert ended.value.code == 3
    assert said in capsys.readouterr().err


def test_a_fault_that_nobody_can_mend_by_settings_keeps_its_traceback(capsys):
    with pytest.raises(OSError, match="wire"), _faults():
        raise OSError(errno.EPIPE, "wire")
    assert capsys.readouterr().err == ""
