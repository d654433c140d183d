"""Processes that detach from their instance end with it."""

import contextlib
import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from hosts.agent import cgroup, proc
from hosts.agent.process import INIT
from tests.hosts.conftest import running, settings_for, until

DETACHED = {
    "cleared, own session": "env -i setsid bash -c '(exec -a {name} sleep 4321 &); exit 0'",
    "double fork": "env -i setsid bash -c 'setsid bash -c \"(exec -a {name} sleep 4321 &) & \" & ' & wait",
    "nohup disown": "(env -i setsid nohup bash -c 'exec -a {name} sleep 4321' >/dev/null 2>&1 &)",
    "deaf": "env -i setsid bash -c '(trap \"\" TERM HUP INT; exec -a {name} sleep 4321) & ' ",
    "breeding": "env -i setsid bash -c 'while :; do (exec -a {name} sleep 4321 &) ; sleep 0.05; done' &",
    "suspended": "env -i setsid bash -c '(exec -a {name} sleep 4321) & sleep 0.3; kill -STOP $!' &",
}


def named(name: str) -> list[int]:
    """Running processes whose command line begins with the name."""
    found = []
    for pid in proc.pids():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        now = proc.stat(pid)
        if command.startswith(name.encode()) and now is not None and now.alive:
            found.append(pid)
    return found


@pytest.fixture(params=["cgroup", "child subreaper"])
def contained(request, monkeypatch):
    """Sets the containment mechanism of the next marketplace."""
    if request.param == "child subreaper":
        monkeypatch.setattr(cgroup, "find_controller", lambda: None)
        monkeypatch.setattr(cgroup, "find_hierarchy", lambda: None)
    elif cgroup.find_hierarchy() is None:
        pytest.skip("this process may not make control groups; the child subreaper is tested")
    return request.param


@pytest.fixture
async def market_of_means(tmp_path):
    """Starts a marketplace in this process."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**changes):
            return await stack.enter_async_context(running(settings_for(tmp_path / "market", **changes)))

        yield start


@pytest.fixture
async def name():
    made = f"detached-{uuid.uuid4().hex[:12]}"
    yield made
    for pid in named(made):
        os.kill(pid, signal.SIGKILL)


async def lives(name: str):
    async def there():
        return named(name)

    return await until(there, what="the detached process")


@pytest.mark.parametrize("how", DETACHED)
async def test_a_detached_process_ends_with_its_instance(contained, market_of_means, name, how):
    bench = await market_of_means()
    instance_id = await bench.rent(onstart=f"{DETACHED[how].format(name=name)}\nexec sleep 1000")
    await lives(name)
    await bench.market.destroy(instance_id)
    assert named(name) == []
    assert await bench.gone(instance_id)


@pytest.mark.parametrize("how", ["stop", "reboot", "recycle"])
async def test_a_detached_process_ends_with_a_stop_and_a_reboot(contained, market_of_means, name, how):
    bench = await market_of_means(stop_grace_seconds=0.2)
    detach = DETACHED["deaf"].format(name=name)
    instance_id = await bench.rent(
        onstart=f"echo boot >> boots; [ $(wc -l < boots) = 1 ] && {detach}\nexec sleep 1000"
    )
    await lives(name)
    if how == "stop":
        await bench.market.stop(instance_id)
        await bench.reaches(instance_id, "stopped")
        assert named(name) == []
        return
    first = set(named(name))
    (await bench.http.put(f"/api/v0/instances/{how}/{instance_id}/")).raise_for_status()

    async def rebooted():
        return not first & set(named(name))

    await until(rebooted, what="the end of the first boot")


async def test_a_detached_process_ends_when_the_first_process_does(contained, market_of_means, name):
    bench = await market_of_means()
    instance_id = await bench.rent(onstart=f"{DETACHED['breeding'].format(name=name)}\nsleep 1; exit 7")
    await bench.reaches(instance_id, "exited")
    assert named(name) == []
    assert "exited with code 7" in (await bench.row(instance_id))["status_msg"]


async def test_an_instance_whose_processes_survive_is_not_reported_destroyed(market_of_means, monkeypatch):
    bench = await market_of_means()
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    process = bench.host.instances[instance_id].process
    real = process.living
    monkeypatch.setattr("hosts.agent.process.UNKILLABLE_SECONDS", 0.1)
    monkeypatch.setattr(
        process, "living", lambda: [*real(), 2**22 + 1]
    )  # stuck in the kernel: no signal ends it
    answer = await bench.http.delete(f"/api/v0/instances/{instance_id}/")
    assert (answer.status_code, answer.json()["error"]) == (500, "instance_not_ended")
    assert not await bench.gone(instance_id)
    monkeypatch.setattr(process, "living", real)
    await bench.market.destroy(instance_id)
    assert await bench.gone(instance_id)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -KILL $$", -9), ("nonsense", 127)],
)
def test_the_init_process_ends_as_its_command_does(command, code):
    assert (
        subprocess.run([*INIT, "bash", "-c", command], check=False, stderr=subprocess.DEVNULL).returncode
        == code
    )
