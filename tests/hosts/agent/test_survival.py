"""Instances survive a killed marketplace, are adopted by the next one, and leave nothing behind at the end."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys

import pytest

from hosts import MachineSettings, StateInUse
from hosts.agent import cgroup
from hosts.agent import proc as proc_view


def uid_of(state_dir) -> str:
    with contextlib.closing(sqlite3.connect(state_dir / "market.sqlite")) as database:
        (uid,) = database.execute("SELECT value FROM facts WHERE name = 'uid'").fetchone()
    return uid


def processes_of(state_dir) -> list[int]:
    return sorted(proc_view.tagged(f"{uid_of(state_dir)}:"))


def cgroups_of(state_dir) -> list:
    controller = cgroup.find_controller()
    return sorted(controller.root.glob(f"stoker-{uid_of(state_dir)}-*")) if controller else []


async def test_a_killed_market_finds_its_running_instances_again(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    offers = [offer.id for offer in await bench.offers()]
    instance_id = await bench.rent(onstart="echo boot >> kept; echo $$; exec sleep 1000", label="stoker:a:1")
    await bench.reaches(instance_id, "running")

    async def printed():
        return (await bench.market.logs(instance_id)).strip()

    pid = int(await tools.until(printed))
    stopped = await bench.rent(label="stoker:a:2")
    await bench.market.stop(stopped)
    await bench.reaches(stopped, "stopped")
    await bench.close()

    market.end(signal.SIGKILL)
    assert tools.alive(pid)
    market.start()

    bench = tools.Bench(market.url)
    found = {one.id: one for one in await bench.market.list()}
    assert found[instance_id].actual_status == "running"
    assert found[stopped].actual_status == "stopped"
    assert (await bench.market.logs(instance_id)).split() == [str(pid)]
    free = [offer.id for offer in await bench.offers()]
    assert set(free) < set(offers)
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    assert not tools.alive(pid)
    await bench.close()


async def test_an_instance_that_died_with_the_machine_is_started_again(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    instance_id = await bench.rent(
        onstart="echo boot >> kept; echo boots $(wc -l < kept) $$; exec sleep 1000"
    )
    pid = int((await bench.printed(instance_id, "boots 1 ")).split()[-1])
    await bench.close()
    market.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    market.start()
    bench = tools.Bench(market.url)
    await bench.printed(instance_id, "boots 2 ")
    await bench.close()


async def test_an_adopted_instance_that_ends_is_noticed(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    instance_id = await bench.rent(onstart="echo pid $$; exec sleep 1000")
    pid = int((await bench.printed(instance_id, "pid ")).split()[-1])
    await bench.close()
    market.end(signal.SIGKILL)
    market.start()
    bench = tools.Bench(market.url)
    await bench.reaches(instance_id, "running")
    os.kill(pid, signal.SIGKILL)
    await bench.reaches(instance_id, "exited")
    await bench.close()


async def test_an_adopted_instance_that_was_left_suspended_goes_on(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    instance_id = await bench.rent(onstart="echo pid $$; exec sleep 1000")
    pid = int((await bench.printed(instance_id, "pid ")).split()[-1])
    await bench.close()
    market.end(signal.SIGKILL)
    os.kill(pid, signal.SIGSTOP)
    market.start()

    async def goes_on():
        return proc_view.stat(pid).state not in "Tt"

    await tools.until(goes_on, what="an instance that is not suspended")


async def test_sigterm_leaves_no_process_and_no_cgroup_behind(market_process, tools, tmp_path):
    market = market_process(stop_grace_seconds=0.3)
    bench = tools.Bench(market.url)
    # One of them leaves its session and has a child that ignores SIGTERM.
    ids = [
        await bench.rent(template_hash="server"),
        await bench.rent(onstart="setsid sleep 1000 & (trap '' TERM; sleep 1000) & echo up; wait"),
    ]
    for instance_id in ids:
        await bench.reaches(instance_id, "running")
    await bench.printed(ids[1], "up")
    assert len(processes_of(tmp_path / "market")) >= 3
    if cgroup.find_controller():
        assert len(cgroups_of(tmp_path / "market")) == 2
    await bench.close()
    assert market.end(signal.SIGTERM) == 0
    assert processes_of(tmp_path / "market") == []
    assert cgroups_of(tmp_path / "market") == []


async def test_a_stopped_market_starts_its_instances_again_at_the_next_start(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    await bench.close()
    assert market.end(signal.SIGTERM) == 0
    market.start()
    bench = tools.Bench(market.url)
    await bench.reaches(instance_id, "running")
    await bench.close()


async def test_a_market_may_leave_its_instances_running(market_process, tools):
    market = market_process(instances_on_exit="keep")
    bench = tools.Bench(market.url)
    instance_id = await bench.rent(onstart="echo pid $$; exec sleep 1000")
    pid = int((await bench.printed(instance_id, "pid ")).split()[-1])
    await bench.close()
    assert market.end(signal.SIGTERM) == 0
    assert tools.alive(pid)
    market.start()
    bench = tools.Bench(market.url)
    assert (await bench.market.show(instance_id)).actual_status == "running"
    await bench.market.destroy(instance_id)
    assert not tools.alive(pid)
    await bench.close()


async def test_an_unrecorded_process_is_killed_at_the_next_start(tmp_path, tools):
    import asyncio

    settings = tools.settings_for(tmp_path / "m")
    async with tools.running(settings) as bench:
        mark = f"{bench.host.store.uid}:777"
    stray = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(1000)", env={proc_view.TAG_VARIABLE: mark}
    )
    async with tools.running(settings):
        assert await asyncio.wait_for(stray.wait(), 20) == -signal.SIGKILL


async def test_two_markets_never_share_a_state_directory(bench, tmp_path, tools):
    with pytest.raises(StateInUse, match="another host marketplace"):
        async with tools.running(tools.settings_for(tmp_path / "market")):
            pass
    assert await bench.offers()


async def test_the_state_is_for_its_owner_only(bench, tmp_path):
    await bench.rent()
    state = tmp_path / "market"
    assert state.stat().st_mode & 0o777 == 0o700
    for file in state.glob("market.sqlite*"):
        assert file.stat().st_mode & 0o077 == 0


async def test_templates_and_offer_ids_outlive_a_restart(tmp_path, tools):
    settings = tools.settings_for(tmp_path / "m")
    async with tools.running(settings) as bench:
        offers = [one.id for one in await bench.offers()]
        made = (await bench.http.post("/api/v0/template/", json={"name": "t", "onstart": "true"})).json()
    async with tools.running(settings) as bench:
        assert [one.id for one in await bench.offers()] == offers
        found = await bench.market.template(hash_id=made["template"]["hash_id"])
        assert found.id == made["template"]["id"]


async def test_a_market_killed_in_the_middle_of_a_pull_goes_on_with_it(market_process, tools, tmp_path):
    machines = (
        MachineSettings(name="CPU small", count=1, dollars_per_hour=0.1, pull_mb=4, pull_mb_per_second=2),
    )
    market = market_process(machines=machines)
    bench = tools.Bench(market.url)
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "loading")
    image = tmp_path / "market" / "instances" / str(instance_id) / "image"

    async def begun():
        return image.exists() and image.stat().st_size > 0

    await tools.until(begun, what="the first bytes of the image")
    await bench.close()
    market.end(signal.SIGKILL)
    before = image.stat().st_size
    assert 0 < before < 4_000_000
    market.start()
    bench = tools.Bench(market.url)
    await bench.reaches(instance_id, "running")
    assert image.stat().st_size == 4_000_000
    await bench.close()


async def test_a_market_on_a_copied_folder_leaves_the_originals_instances_alone(
    market_process, tools, tmp_path
):
    """A backup that is started elsewhere contains the original's pids, tags and ports."""
    original = market_process()
    bench = tools.Bench(original.url)
    instance_id = await bench.rent(onstart="echo pid $$; exec sleep 1000")
    pid = int((await bench.printed(instance_id, "pid ")).split()[-1])
    await asyncio.to_thread(shutil.copytree, tmp_path / "market", tmp_path / "copy")

    copy = market_process(state_dir=tmp_path / "copy")
    there = tools.Bench(copy.url)
    assert await there.market.list() == [], "the tokens in their environment are the original's"
    own = await there.rent(onstart="echo pid $$; exec sleep 1000")
    assert own != instance_id
    own_pid = int((await there.printed(own, "pid ")).split()[-1])
    await there.close()
    assert copy.end(signal.SIGTERM) == 0
    assert not tools.alive(own_pid)
    assert tools.alive(pid)
    assert (await bench.market.show(instance_id)).actual_status == "running"
    await bench.close()
