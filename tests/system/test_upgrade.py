"""A live deployment is upgraded and downgraded with real processes, by the commands of docs/how-to/upgrade.md."""

import asyncio
import itertools
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

import stoker
from run.commands.dev import DevStack
from run.processes.supervisor import Child

from .conftest import QUICK, ROUTE, TEXT_MODEL, payload, settings_in, until

ROOT = Path(__file__).parents[2]
ROOMS = ("activities", "controller", "market", "policy", "run", "workflows", "engine")
CHANGES = {
    "wire/stoker_wire/endpoint.py": [
        ("    max_workers: int = Field(16,", "    warmth: float = 0.0\n    max_workers: int = Field(16,"),
        (
            "    max_workers: int | None = Field(None,",
            "    warmth: float | None = None\n    max_workers: int | None = Field(None,",
        ),
    ],
    "controller/state.py": [
        ("    key_version: int = 1\n", '    key_version: int = 1\n    mood: str = ""\n'),
        (
            "        self.record.decisions = list(self.log.lines)\n",
            '        self.record.decisions = list(self.log.lines)\n        self.record.mood = "new"\n',
        ),
    ],
}
"""The next release: one more parameter, one more field in the state."""


class Versioned(DevStack):
    """Temporal, market and engine of this code; workers of the builds that the test starts."""

    async def _start_children(self) -> None:
        real = self.supervisor.start

        async def all_but_the_worker(child: Child) -> None:
            if child.name != "worker":
                await real(child)

        self.supervisor.start = all_but_the_worker  # type: ignore[method-assign]
        self._wait_for_pollers = self._not_waited_for  # type: ignore[method-assign]
        try:
            await super()._start_children()
        finally:
            self.supervisor.start = real  # type: ignore[method-assign]
        self.config = self.state_dir / "production.json"
        versioned = self.settings.model_copy(
            update={
                "worker": self.settings.worker.model_copy(
                    update={"deployment": "stoker", "metrics_port": None}  # two builds run on this machine
                )
            }
        )
        self.config.write_text(versioned.model_dump_json())

    async def _not_waited_for(self, client: object) -> None:
        return None

    async def start_worker(self, build_id: str, source: Path) -> None:
        child = self._child(f"worker-{build_id}", self._stokerd("worker", build_id), stop_seconds_max=40)
        child.environment = environment(source)
        await self.supervisor.start(child)

    async def rollout(self, build_id: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._stokerd("rollout", build_id),
            env=environment(ROOT),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await asyncio.wait_for(process.communicate(), 150))[0].decode()
        assert process.returncode == 0, said
        return said

    def _stokerd(self, role: str, build_id: str) -> list[str]:
        # -P: the code is the environment's, not the current folder's
        return [sys.executable, "-P", "-m", "run", role, "--config", str(self.config), "--build-id", build_id]


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{source / 'wire'}"}


def next_release(folder: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "wire" / "stoker_wire", folder / "wire" / "stoker_wire")
    for name, changes in CHANGES.items():
        path = folder / name
        text = path.read_text()
        for old, new in changes:
            assert old in text, (name, old)
            text = text.replace(old, new, 1)
        path.write_text(text)
    return folder


@pytest.fixture
async def versioned(tmp_path):
    stack = Versioned(settings_in(tmp_path / "state"))
    await stack.start()
    yield stack
    await stack.stop()


@pytest.mark.long
async def test_a_live_deployment_goes_to_the_next_release_and_back(versioned, tmp_path):
    await versioned.start_worker("1", ROOT)
    assert "build 1" in await versioned.rollout("1")
    temporal = await versioned.client()
    async with stoker.Serverless(versioned.keys.account_key, url=versioned.settings.engine.url) as client:
        made = await client.endpoints.create(
            "live", **(QUICK | {"min_load": 1.0, "inactivity_timeout": -1.0})
        )
        await client.workergroups.create(made.id, **TEXT_MODEL)
        await client.endpoints.create("told", min_load=0.0, min_workers=0)
        endpoint = await client.get_endpoint("live")
        before = await endpoint.request(ROUTE, payload(4), cost=4, timeout=90)
        live, told = (temporal.get_workflow_handle(f"endpoint/{name}") for name in ("live", "told"))
        over = asyncio.Event()
        signals = itertools.count(1)
        sent = 0

        async def signal() -> None:
            nonlocal sent
            while not over.is_set():
                sent = next(signals)
                batch = {"engine_id": "other", "sequence": sent, "sent_at": time.time(), "window_s": 0.1}
                await told.signal("report_metrics", batch | {"arrived_load": 1.0, "arrived_requests": 1})
                await asyncio.sleep(0.05)

        async def ask() -> list[stoker.Answer]:
            answers = []
            while not over.is_set():
                answers.append(await endpoint.request(ROUTE, payload(4), cost=4, timeout=90))
                await asyncio.sleep(0.2)
            return answers

        async with asyncio.TaskGroup() as group:
            group.create_task(signal())
            asking = group.create_task(ask())
            await versioned.start_worker("2", next_release(tmp_path / "next"))
            said = await versioned.rollout("2")
            assert "build 1 -> 2" in said
            assert "workers of build 1 can be stopped" in said
            await live.execute_update("update_config", {"warmth": 3.0, "max_workers": 2})
            await live.signal("update_config", {"warmth": 4.0})
            said = await versioned.rollout("1")
            assert "build 2 -> 1" in said
            over.set()
        status = await live.query("status")
        assert "warmth" not in status["config"]
        assert status["config"]["max_workers"] == 2, "what both know is kept"
        lines = [line["reason"] for line in await live.query("decisions", 50)]
        assert any("does not know it: " in line and "config.warmth" in line for line in lines), lines
        load = await told.query("load")
        assert sum(amount for _, amount in load["quarters"]) == pytest.approx(sent)
        workers = await client.endpoints.workers(endpoint.id)
        assert [worker.id for worker in workers] == [before.worker_id], "nothing was rented again"
        answers = asking.result()
        assert len(answers) > 5
        assert {answer.worker_id for answer in answers} == {before.worker_id}
        await client.endpoints.delete(endpoint.id)
        await until(lambda: _released(live), what="the endpoint's end")


async def _released(handle) -> bool:
    return (await handle.describe()).status.name == "COMPLETED"
