"""One deployment per state folder, and free ports."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from run.errors import CommandError
from run.state_folder.lock import ChildRecord, StateLock, free_port, require_free


@pytest.fixture
def lock(tmp_path):
    lock = StateLock(tmp_path)
    yield lock
    lock.release()


def test_a_second_deployment_on_the_same_state_folder_is_refused_and_names_the_first(tmp_path, lock):
    lock.acquire()
    with pytest.raises(CommandError, match=f"pid {os.getpid()}"):
        StateLock(tmp_path).acquire()


def test_a_released_lock_can_be_taken_again(tmp_path, lock):
    first = StateLock(tmp_path)
    first.acquire()
    first.release()
    lock.acquire()


def test_a_lock_whose_holder_died_can_be_acquired(tmp_path, lock):
    script = f"from pathlib import Path; from run.state_folder.lock import StateLock; StateLock(Path({str(tmp_path)!r})).acquire()"
    subprocess.run([sys.executable, "-c", script], check=True)
    lock.acquire()


def test_a_port_in_use_is_named_with_its_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} .* in use.*engine.port"):
            require_free({"engine.port": ("127.0.0.1", port)})


def test_a_free_port_passes():
    require_free({"engine.port": ("127.0.0.1", free_port())})


def test_a_child_left_from_an_earlier_run_is_named_with_what_to_do(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as left:
        try:
            record = ChildRecord(tmp_path)
            record.write({"temporal": left.pid})
            with pytest.raises(
                CommandError, match=f"temporal, pid {left.pid}, still runs .* kill {left.pid}"
            ):
                record.refuse_stale()
        finally:
            left.kill()


def test_a_reused_pid_is_not_a_stale_child(tmp_path):
    record = ChildRecord(tmp_path)
    record.write({"temporal": os.getpid()})
    text = (tmp_path / "children.json").read_text()
    (tmp_path / "children.json").write_text(text.replace('"]', '0"]'))
    record.refuse_stale()


def test_pids_in_a_copied_folder_are_not_the_copys(tmp_path):
    """The original deployment may still run, so its children must not be reported as leftover."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    ChildRecord(original).write({"temporal": os.getpid()})
    shutil.copytree(original, copy)
    ChildRecord(copy).refuse_stale()
    with pytest.raises(CommandError, match=f"kill {os.getpid()}"):
        ChildRecord(original).refuse_stale()


def test_pids_of_an_earlier_boot_are_not_ours(tmp_path, monkeypatch):
    ChildRecord(tmp_path).write({"temporal": os.getpid()})
    monkeypatch.setattr("run.state_folder.lock.boot_id", lambda: "a later boot")
    ChildRecord(tmp_path).refuse_stale()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"children": []}', '{"children": {"a": 1}}', "no JSON"])
def test_a_damaged_record_of_children_is_ignored(tmp_path, text):
    (tmp_path / "children.json").write_text(text)
    ChildRecord(tmp_path).refuse_stale()


def test_a_pid_that_does_not_hold_the_lock_is_not_named_to_be_killed(tmp_path, lock):
    """The holder may run in another container or machine, and its pid may be another process here."""
    lock.acquire()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            (tmp_path / "stokerd.lock").write_text(str(other.pid))
            with pytest.raises(CommandError, match="cannot see") as told:
                StateLock(tmp_path).acquire()
            assert str(other.pid) not in str(told.value)
        finally:
            other.kill()
