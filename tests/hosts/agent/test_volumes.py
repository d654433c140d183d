"""Volumes: folders for weights that outlive the instances of a deployment."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from hosts.agent import volumes as agent_volumes
from hosts.agent.volumes import Volumes
from hosts.catalog.record import InstanceRecord
from market.interface import Refused

WRITE = 'echo "folder $WEIGHTS"; echo there > "$WEIGHTS/file"; exec sleep 1000'
READ = (
    'echo "folder $WEIGHTS"; echo "found $(cat "$WEIGHTS/file" 2>/dev/null || echo nothing)"; exec sleep 1000'
)


async def folder_of(bench, instance_id: int) -> Path:
    log = await bench.printed(instance_id, "folder /")
    return Path(log.split("folder ")[1].split()[0])


def label(deployment: str) -> str:
    return f"stoker:{deployment * 12}:llm:0123456789ab"


async def test_a_volume_outlives_its_instance(bench):
    first = await bench.rent(onstart=WRITE, env={"WEIGHTS": "volume:llm"}, label=label("a"))
    folder = await folder_of(bench, first)
    await bench.market.destroy(first)
    assert (folder / "file").read_text() == "there\n"
    second = await bench.rent(onstart=READ, env={"WEIGHTS": "volume:llm"}, label=label("a"))
    await bench.printed(second, "found there")


async def test_deployments_share_a_volume_only_if_both_ask_for_it(bench):
    first = await bench.rent(onstart=WRITE, env={"WEIGHTS": "volume:llm"}, label=label("a"))
    await folder_of(bench, first)
    other = await bench.rent(onstart=READ, env={"WEIGHTS": "volume:llm"}, label=label("b"))
    await bench.printed(other, "found nothing")
    for one in (first, other):
        await bench.market.destroy(one)
    first = await bench.rent(onstart=WRITE, env={"WEIGHTS": "volume:shared/llm"}, label=label("a"))
    await folder_of(bench, first)
    other = await bench.rent(onstart=READ, env={"WEIGHTS": "volume:shared/llm"}, label=label("b"))
    await bench.printed(other, "found there")


@pytest.mark.parametrize("name", ["", "../escape", "a/b", "shared/", "shared/../x", "/etc", "a" * 65])
async def test_a_volume_has_a_plain_name(bench, name):
    with pytest.raises(Refused, match="WEIGHTS: expected"):
        await bench.rent(env={"WEIGHTS": f"volume:{name}"})
    template = {"name": "t", "onstart": READ, "env": f"-e 'WEIGHTS=volume:{name}'"}
    made = (await bench.http.post("/api/v0/template/", json=template)).json()["template"]
    with pytest.raises(Refused, match="WEIGHTS: expected"):
        await bench.rent(template_hash=made["hash_id"])


async def test_the_volume_unused_for_longest_is_dropped_for_space(tmp_path, tools):
    # 0.002 GB hold two volumes of 0.8 MB. The third start drops the one that was used first.
    fill = (
        'head -c 800000 /dev/urandom > "$WEIGHTS/file"; echo "folder $WEIGHTS"; echo found; exec sleep 1000'
    )
    async with tools.running(tools.settings_for(tmp_path / "m", volumes_gb_max=0.002)) as bench:
        folders = {}
        for number, name in enumerate(("old", "new.dropped")):
            one = await bench.rent(onstart=fill, env={"WEIGHTS": f"volume:{name}"})
            folders[name] = await folder_of(bench, one)
            await bench.printed(one, "found")
            await bench.market.destroy(one)
            os.utime(folders[name], (number, number))
        used = await bench.rent(onstart=fill, env={"WEIGHTS": "volume:used"})
        await bench.printed(used, "found")
        last = await bench.rent(onstart=READ, env={"WEIGHTS": "volume:last"})
        await bench.printed(last, "found nothing")
        assert (folders["old"].exists(), folders["new.dropped"].exists()) == (False, True)
        folder = await folder_of(bench, used)
        os.utime(folder, (0, 0))
        await bench.market.reboot(last)
        await bench.printed(last, "found nothing\nfolder")
        assert (folder / "file").stat().st_size == 800_000, "an instance that runs uses it"


async def test_a_start_during_a_removal_finds_its_volume(tmp_path, monkeypatch):
    # No space for any volume: the first start drops `llm`, which no instance uses. The second start needs it.
    measures, goes_on = threading.Event(), threading.Event()

    def measured(folder: Path) -> int:
        measures.set()
        assert goes_on.wait(30)
        return 1

    def record(number: int, volume: str) -> InstanceRecord:
        prices = {"dollars_per_hour": 1.0, "storage_dollars_per_hour": 0.0}
        env = {"WEIGHTS": f"volume:shared/{volume}"}
        return InstanceRecord(
            id=number, offer_id=1, machine="m", slot=0, created_at=0.0, api_key="k", env=env, **prices
        )

    monkeypatch.setattr(agent_volumes, "_bytes_in", measured)
    (tmp_path / "shared/llm").mkdir(parents=True)
    volumes = Volumes(tmp_path, bytes_max=0)
    first = asyncio.create_task(volumes.prepare(record(1, "other")))
    assert await asyncio.to_thread(measures.wait, 30)
    second = asyncio.create_task(volumes.prepare(record(2, "llm")))
    await asyncio.sleep(0)  # the second start has begun
    goes_on.set()
    await asyncio.gather(first, second)
    assert sorted(folder.name for folder in (tmp_path / "shared").iterdir()) == ["llm", "other"]
