"""A model server that exits while loading is reported within seconds, with the last line of its log."""

import asyncio
import os
import subprocess
import sys

import pytest

from stoker_pyworker import LogActionConfig
from stoker_pyworker.model import model_process
from tests.pyworker.harness import until

ACTIONS = LogActionConfig(on_load=["model ready"], on_error=["CUDA error"])
ENDED = "the model server ended before it was loaded; its log ends with: "


@pytest.fixture
def quick(monkeypatch):
    """Shorten both deadlines: a test runner has sibling processes."""
    monkeypatch.setattr(model_process, "_ALONE_SECONDS", 0.3)
    monkeypatch.setattr(model_process, "_BUSY_SECONDS", 0.3)
    monkeypatch.setattr(model_process, "_POLL_SECONDS", 0.05)


@pytest.fixture
async def loading(make_worker, model, tmp_path, quick):
    """A worker whose model server does not answer yet."""
    await model.stop()
    log = tmp_path / "model.log"
    worker = await make_worker(model_log_file=str(log), log_action_config=ACTIONS, ready=False)
    return worker, log


def serve(log, script):
    """Start a process that has the log open for writing."""
    with log.open("ab") as output:
        return subprocess.Popen(["bash", "-c", script], stdout=output, stderr=output, stdin=subprocess.PIPE)


@pytest.mark.parametrize(
    "script",
    [
        "echo loading; read; echo 'Repo id must be in the form namespace/name: /models/none' >&2; exit 1",
        "echo loading; read; kill -KILL $$",
        "echo loading; read; exit 0",
        "echo loading; read | tee /dev/null; echo 'bye'",
    ],
)
async def test_a_model_server_that_exits_while_it_loads_is_an_error(loading, script):
    worker, log = loading
    server = serve(log, script)
    await until(lambda: model_process.writers(log))
    await asyncio.sleep(0.5)  # a running model server is no error
    assert worker.runtime.health.error == ""
    server.communicate(b"\n")
    await until(lambda: worker.runtime.health.error)
    assert worker.runtime.health.error == ENDED + log.read_text().splitlines()[-1]
    assert worker.engine.statuses[-1]["error_msg"] or await until(
        lambda: worker.engine.statuses[-1]["error_msg"]
    )


async def test_a_restarted_model_server_clears_the_error(loading):
    worker, log = loading
    first = serve(log, "read; echo 'cannot load'")
    await asyncio.sleep(0.5)
    first.communicate(b"\n")
    await until(lambda: worker.runtime.health.error)
    again = serve(log, "echo again; read")
    await until(lambda: not worker.runtime.health.error)
    again.communicate(b"\n")


async def test_an_exit_before_the_worker_started_is_found_in_the_log(loading):
    worker, log = loading
    log.write_text("starting\nFileNotFoundError: [Errno 2] No such file or directory: '/models/none'\n")
    await until(lambda: worker.runtime.health.error)
    assert "'/models/none'" in worker.runtime.health.error


async def test_a_log_without_a_writer_and_without_an_error_is_no_evidence(loading):
    worker, log = loading
    log.write_text("downloading the weights, 3 of 40 GB\n")
    await asyncio.sleep(1.0)
    assert worker.runtime.health.error == ""


async def test_a_loaded_model_server_is_not_watched(make_worker, model, tmp_path, quick):
    log = tmp_path / "model.log"
    log.write_text("model ready\nan error of an earlier start\n")
    worker = await make_worker(model_log_file=str(log), log_action_config=ACTIONS)
    await worker.ready()
    await model.stop()
    await asyncio.sleep(1.0)
    assert "before it was loaded" not in worker.runtime.health.error


def test_only_processes_that_can_write_count(tmp_path):
    log = tmp_path / "log"
    assert model_process.writers(log) is None
    log.touch()
    with log.open("rb") as source, log.open("ab") as sink:
        reader = subprocess.Popen(["sleep", "1000"], stdin=source)
        writer = subprocess.Popen(["sleep", "1000"], stdout=sink)
    try:
        assert model_process.writers(log) == [writer.pid]
    finally:
        for one in (reader, writer):
            one.kill()
            one.wait()


SCRIPT = """
{before}
{python} -c '
import time
from stoker_pyworker.model import model_process
time.sleep({pause})
print([open(f"/proc/{{pid}}/comm").read().strip() for pid in model_process._other_processes()])
'
"""


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("", "[]"),
        ("sleep 60 & tail -f /dev/null &", "[]"),
        ("(while :; do read -t 60 < <(sleep 60); done) &", "[]"),
        ("cat /dev/zero > /dev/null &", "['cat']"),
        ("(yes > /dev/null) &", "['yes']"),
    ],
)
def test_other_processes_of_the_start_script_are_found(before, found):
    script = SCRIPT.format(before=before, python=sys.executable, pause=0.3)
    done = subprocess.run(
        ["setsid", "bash", "-c", f"trap 'kill -TERM 0' EXIT; {script}\ntrue"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "pyworker:wire"},
        timeout=60,
    )
    assert done.stdout.strip() == found, done.stderr
