"""CPU limits of instances, enforced by a control group or by the governor."""

import time

import pytest

from hosts import MachineSettings
from hosts.agent import cgroup
from hosts.agent import proc as proc_view

BURN = "exec python -c 'while True: pass'"


def cpu_seconds(pid: int) -> float:
    import os

    return proc_view.stat(pid).cpu_ticks / os.sysconf("SC_CLK_TCK")


async def shares(bench, tools, kinds: list[str]) -> list[float]:
    """The CPU share of a busy loop on each machine kind, measured until the first has used two seconds.

    Tests assert upper bounds only: how much CPU time the loops get depends on the load of the machine.
    """
    pids = []
    for kind in kinds:
        instance_id = await bench.rent(kind=kind, onstart=BURN)
        await bench.reaches(instance_id, "running")
        pids.append(bench.host.instances[instance_id].process.pid)

    async def burning():
        return all(cpu_seconds(pid) >= 0.1 for pid in pids)

    await tools.until(burning, seconds=60, what="busy loops")
    began, before = time.monotonic(), [cpu_seconds(pid) for pid in pids]

    async def enough():
        return cpu_seconds(pids[0]) - before[0] >= 2.0

    await tools.until(enough, seconds=60, what="two seconds of CPU time")
    passed = time.monotonic() - began
    return [(cpu_seconds(pid) - start) / passed for pid, start in zip(pids, before, strict=True)]


@pytest.mark.parametrize("means", ["auto", "governor"])
async def test_a_busy_instance_stays_under_its_share(tmp_path, tools, means):
    machines = (
        MachineSettings(name="half", count=1, dollars_per_hour=0.2, cpu_percent=50),
        MachineSettings(name="fiftieth", count=1, dollars_per_hour=0.1, cpu_percent=2),
    )
    settings = tools.settings_for(tmp_path / "m", machines=machines, cpu_limit=means)
    async with tools.running(settings) as bench:
        half, fiftieth = await shares(bench, tools, ["half", "fiftieth"])
        # Without a limit, both loops get equal shares. On a loaded machine that may be less than a half, so the
        # second limit is far below any fair share. The governor reacts late under load, the kernel does not.
        assert fiftieth < half * 0.8
        if means != "governor":
            assert half < 0.65
            assert fiftieth < 0.05


async def test_the_kernel_is_asked_for_the_share_before_the_first_instruction(bench):
    controller = cgroup.find_controller()
    if not isinstance(controller, cgroup.CgroupV1):
        pytest.skip("this machine has no writable cgroup v1 cpu controller")
    instance_id = await bench.rent(onstart="grep -E '[:,]cpu[:,]' /proc/self/cgroup; exec sleep 1000")
    log = await bench.printed(instance_id, "stoker-")
    name = f"stoker-{bench.host.store.uid}-{instance_id}"
    assert log.strip().endswith(name)
    group = controller.root / name
    assert (group / "cpu.cfs_quota_us").read_text().strip() == "10000"
    assert (group / "cpu.cfs_period_us").read_text().strip() == "20000"
    await bench.market.destroy(instance_id)
    assert not group.exists()


async def test_a_governed_instance_can_be_stopped_while_it_is_suspended(tmp_path, tools):
    machines = (MachineSettings(name="crumb", count=1, dollars_per_hour=0.1, cpu_percent=1),)
    settings = tools.settings_for(tmp_path / "m", machines=machines, cpu_limit="governor")
    async with tools.running(settings) as bench:
        instance_id = await bench.rent(
            kind="crumb", onstart="trap 'echo goodbye; exit' TERM; echo up; while :; do :; done"
        )
        pid = bench.host.instances[instance_id].process.pid if await bench.printed(instance_id, "up") else 0

        async def suspended():
            now = proc_view.stat(pid)
            return now is not None and now.state == "T"

        await tools.until(suspended, what="a suspended instance")
        await bench.market.stop(instance_id)
        await bench.reaches(instance_id, "stopped")
        assert "goodbye" in await bench.market.logs(instance_id)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(50, (10_000, 20_000)), (5, (1_000, 20_000)), (1, (1_600, 160_000)), (400, (80_000, 20_000))],
)
def test_a_small_share_gets_a_longer_period_so_that_its_quota_stays_legal(percent, expected):
    quota, period = cgroup.quota(percent)
    assert quota >= cgroup.QUOTA_US_MIN
    assert quota / period == pytest.approx(percent / 100)
    if percent >= 5:
        assert (quota, period) == expected


def test_cgroup_v2_gets_quota_and_period_in_one_line(tmp_path):
    cgroup.CgroupV2(tmp_path).write_limit(tmp_path, 25)
    assert (tmp_path / "cpu.max").read_text() == "5000 20000"
