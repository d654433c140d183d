"""The supervisor restarts children and stops all of them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from run.processes.supervisor import Child, ProcessSupervisor

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def child(tmp_path: Path, command: list[str], *, stop_seconds_max: float = 5) -> Child:
    return Child(
        name="sleeper",
        command=command,
        log_file=tmp_path / "sleeper.log",
        environment={"PATH": os.environ["PATH"]},
        stop_seconds_max=stop_seconds_max,
    )


async def until(condition, *, seconds_max: float = 20) -> None:
    async with asyncio.timeout(seconds_max):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
async def supervisor():
    supervisor = ProcessSupervisor()
    yield supervisor
    await supervisor.stop()


async def test_a_child_that_was_killed_is_started_again(supervisor, tmp_path):
    sleeper = child(tmp_path, SLEEPER)
    await supervisor.start(sleeper)
    first = sleeper.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: sleeper.pid not in (None, first))
    assert sleeper.restarts == 1


async def test_a_child_that_cannot_be_started_now_is_tried_again(supervisor, tmp_path):
    sleeper = child(tmp_path, SLEEPER)
    await supervisor.start(sleeper)
    sleeper.log_file.unlink()
    sleeper.log_file.mkdir()  # like on a full disk, the file cannot be opened
    with capture_logs() as said:
        os.kill(sleeper.pid, signal.SIGKILL)
        await until(lambda: sum(line["event"] == "child.not_started" for line in said) >= 2)
    sleeper.log_file.rmdir()
    await until(lambda: sleeper.pid is not None)


async def test_stopping_ends_every_child(supervisor, tmp_path):
    sleeper = child(tmp_path, SLEEPER)
    await supervisor.start(sleeper)
    pid = sleeper.pid
    await supervisor.stop()
    assert not alive(pid)
    assert sleeper.pid is None


async def test_a_child_that_ignores_the_signal_is_killed_after_its_grace(supervisor, tmp_path):
    stubborn = child(tmp_path, STUBBORN, stop_seconds_max=0.2)
    await supervisor.start(stubborn)
    await until(lambda: "up" in stubborn.log_file.read_text())
    pid = stubborn.pid
    await supervisor.stop()
    assert not alive(pid)


async def test_a_stopped_child_is_not_started_again(supervisor, tmp_path):
    sleeper = child(tmp_path, SLEEPER)
    await supervisor.start(sleeper)
    await supervisor.stop()
    await asyncio.sleep(0)
    assert sleeper.restarts == 0


def children() -> set[int]:
    """Every running child of this process."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if process.name.isdigit() and int(parent) == os.getpid() and state != "Z":
            found.add(int(process.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_stopping_leaves_no_child_that_was_just_being_started_again(tmp_path, monkeypatch, loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_stopped_while_it_starts_a_child_again(tmp_path, monkeypatch))


async def _stopped_while_it_starts_a_child_again(tmp_path, monkeypatch):
    begun = asyncio.Semaphore(0)
    start = asyncio.create_subprocess_exec

    async def started(*command, **options):
        begun.release()
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    before = children()
    supervisor = ProcessSupervisor()
    sleeper = child(tmp_path, [sys.executable, "-c", ""])
    await supervisor.start(sleeper)
    first = sleeper.process
    sleeper.command = SLEEPER
    await begun.acquire()
    await begun.acquire()
    assert sleeper.process is first, "the second is on its way"
    assert children() - before, "it is born"
    await supervisor.stop()
    assert children() - before == set()


async def test_a_child_that_died_is_not_started_again_while_the_others_are_ended(supervisor, tmp_path):
    sleeper, stubborn = child(tmp_path, SLEEPER), child(tmp_path / "other", STUBBORN, stop_seconds_max=1)
    stubborn.name = "stubborn"
    await supervisor.start(sleeper)
    await supervisor.start(stubborn)
    await until(lambda: b"up" in stubborn.log_file.read_bytes())
    with capture_logs() as said:
        os.kill(sleeper.pid, signal.SIGKILL)
        await until(lambda: any(line["event"] == "child.exited" for line in said))
        await supervisor.stop()
    assert {"event": "child.killed", "child": "stubborn"}.items() <= said[-2].items(), "it took its second"
    assert sleeper.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_children_end_when_the_supervisor_is_killed(tmp_path):
    script = (
        "import asyncio, sys; from pathlib import Path; from run.processes.supervisor import *\n"
        "async def main():\n"
        f"    c = Child(name='s', command={SLEEPER!r}, log_file=Path({str(tmp_path / 's.log')!r}), environment={{}})\n"
        "    await ProcessSupervisor().start(c); print(c.pid, flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    line = b""
    while not line.strip().isdigit():
        line = await asyncio.wait_for(parent.stdout.readline(), 20)
        assert line
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(int(line)))
