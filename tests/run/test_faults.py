"""Errors of the system or the settings end a command with one sentence and an exit code, without a traceback."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hosts.catalog.store import Store
from run.cli import _faults, app
from run.state_folder.keys import load_keys
from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Keep the process's global settings: each role of this file ends before it serves."""
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
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write: No space left on device; free"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write: Read-only file system; free"),
        (OSError(errno.EADDRINUSE, "in use"), "cannot listen: in use; free the port"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "cannot listen: unknown; set engine.host"),
    ],
)
def test_a_system_error_is_reported_with_advice(capsys, fault, said):
    with pytest.raises(SystemExit) as ended, _faults():
        raise fault
    assert ended.value.code == 3
    assert said in capsys.readouterr().err


def test_an_unknown_error_keeps_its_traceback(capsys):
    with pytest.raises(OSError, match="wire"), _faults():
        raise OSError(errno.EPIPE, "wire")
    assert capsys.readouterr().err == ""


def printed(tmp_path, command, **files):
    """The exit code and stderr of `stokerd <command>` with these standard files."""
    # A deployment that runs on this machine has the ports of the settings' defaults.
    temporal, market = free_port(), free_port()
    (tmp_path / "stoker.yaml").write_text(
        f"temporal: {{port: {temporal}, ui_port: null}}\nhost_market: {{port: {market}}}"
    )
    load_keys(tmp_path / ".stoker", generate=True)
    words = [sys.executable, "-m", "run", *command, "--config", str(tmp_path / "stoker.yaml")]
    done = subprocess.run(
        words, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **files
    )
    return done.returncode, done.stderr


def test_output_that_cannot_be_written_is_one_sentence_and_no_success(tmp_path):
    with Path("/dev/full").open("w") as full:
        code, said = printed(tmp_path, ["key"], stdout=full)
    assert (code, said.count("\n")) == (3, 1), said
    assert "cannot write: No space left on device" in said


def test_a_closed_pipe_causes_no_traceback(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        assert printed(tmp_path, ["key"], stdout=broken) == (128 + signal.SIGPIPE, "")


def test_closed_standard_files_are_no_traceback(tmp_path):
    def close_all():
        os.close(0)
        os.close(1)

    assert printed(tmp_path, ["key"], preexec_fn=close_all) == (0, "")


def test_a_closed_stdin_confirms_nothing(tmp_path):
    code, said = printed(tmp_path, ["panic", "--deployment", "0123456789ab"], preexec_fn=lambda: os.close(0))
    assert code == 4
    assert "the marketplace does not answer" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "damage", [lambda text: b"no database" * 1000, lambda text: text[:4096] + b"\xff" * (len(text) - 4096)]
)
def test_a_damaged_database_of_the_market_is_one_sentence_with_the_remedy(tmp_path, damage):
    load_keys(tmp_path / "state", generate=True)
    Store(tmp_path / "state" / "market").close()
    path = tmp_path / "state" / "market" / "market.sqlite"
    path.write_bytes(damage(path.read_bytes()))
    done = ended(tmp_path, "market", host_market={"port": free_port()})
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1), done.stderr
    assert f"{path} cannot be used (" in done.stderr
    assert "restore it from a backup" in done.stderr


def test_a_damaged_temporal_database_is_reported_with_log_and_advice(tmp_path):
    path = tmp_path / "state" / "temporal.db"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"no database" * 1000)
    done = ended(tmp_path, "dev", **ports())
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.exit_code, len(said)) == (4, 1), done.stderr
    assert "file is not a database" in said[0]
    assert f"If {path} is damaged, restore it from a backup" in said[0]
