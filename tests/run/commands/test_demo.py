"""The demo waits for Enter with `--keep`, ends at once with Ctrl-C, and kills only processes of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from run.demo.chaos import pyworker_pid

ROOT = Path(__file__).parents[3]

WAIT = """
import asyncio
import signal
from run.demo.scenario import _enter_pressed
# As in a terminal's foreground: a shell without job control starts its background jobs with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
async def main():
    waiting = asyncio.ensure_future(_enter_pressed())
    await asyncio.sleep(0)  # its thread reads
    print("waiting", flush=True)
    await waiting
asyncio.run(main())
print("pressed")
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("line", "said"), [(b"\n", b"pressed\n"), (None, b"")])
def test_the_wait_for_enter_ends_with_a_line_or_with_ctrl_c(line: bytes | None, said: bytes) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        if line is None:
            process.send_signal(signal.SIGINT)  # standard input stays open
        else:
            process.stdin.write(line)
            process.stdin.flush()
        assert process.wait(60) == (0 if line else -signal.SIGINT)
        assert process.stdout.read() == said


@contextlib.contextmanager
def pyworker(state_dir: Path) -> Iterator[int]:
    """A process as an instance 10001 of this deployment has."""
    script = state_dir / "worker.py"
    script.parent.mkdir()
    script.write_text("print(flush=True); input()")
    environment = {"CONTAINER_ID": "10001", "WORKSPACE": f"{state_dir}/market/instances/10001/disk"}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_an_instance_of_another_deployment_with_the_same_id_is_not_hit(tmp_path: Path) -> None:
    with pyworker(tmp_path / "other"), pyworker(tmp_path / "own") as own, pyworker(tmp_path / "third"):
        assert pyworker_pid(tmp_path / "own", 10001) == own
        assert pyworker_pid(tmp_path / "fourth", 10001) is None


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 3)])
def test_a_demo_that_is_interrupted_says_so_and_leaves_no_process(
    number: signal.Signals, times: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "run", "demo", "--state-dir", "demo", "--picture", "demo.svg"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stdout.readline().startswith("watch it:"):
            assert process.poll() is None
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.1)  # the stop of its processes takes longer
        process.stdout.read()
        assert process.stderr.read() == "stokerd: the demo was interrupted; every process has ended\n"
        assert process.wait() == 128 + number
    assert [pid for pid in Path("/proc").glob("[0-9]*") if str(tmp_path) in environment_of(pid)] == []


def environment_of(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace") + str((process / "cwd").readlink())
    except OSError:
        return ""
