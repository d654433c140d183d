"""A deployment of real processes under steady traffic, and the checks of its recovery."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

import stoker
from benchmarks.faults.tcp_relay import Wire
from benchmarks.faults.traffic import ROUTE, TOKENS, Traffic
from hosts.settings import TemplateSettings
from market.interface import MarketError
from market.ownership import owner_of
from market.vast.client import VastMarket
from run.commands.dev import DevStack
from run.demo.chaos import instance_pid
from run.settings import SweepSettings, load_settings
from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[2]
HOT = 2
PARAMETERS: dict[str, Any] = {
    "min_load": 1.0,  # raised to more than one worker of this machine serves, when that is known
    "min_workers": HOT,
    "max_workers": 4,
    "cold_mult": 1.0,
    "inactivity_timeout": -1.0,
    "max_queue_time": 3.0,
    "target_queue_time": 4.0,
}
WORKERGROUP: dict[str, Any] = {
    "template_hash": "text-model",
    "search_params": "gpu_name=CPU_S",
    "gpu_ram": 0.0,
}
SECOND_PARAMETERS: dict[str, Any] = {"min_load": 1.0, "min_workers": 1, "max_workers": 1}
ODD_MODEL = TemplateSettings(
    name="odd-model",
    hash_id="odd-model",
    env="-p 3000:3000",
    onstart='STOKER_EXAMPLE_DIR="$STOKER_HOME/benchmarks/faults/odd_model" '
    'bash "$STOKER_HOME/examples/text_model/start.sh"',
)
"""The template of `benchmarks/faults/odd_model`."""
SWEEP = SweepSettings(every_seconds=10.0, young_seconds=5.0, ensure_seconds=5.0)
"""The production settings, sixty times as often: machines of a terminated endpoint are gone within every + ensure +
young."""
WHOLE_SECONDS_MAX = 120.0
PROBE_SECONDS_MAX = 5.0
"""A recovered deployment answers a request within this time, on a shared machine, seconds."""


@dataclass
class Stage:
    """The processes, one endpoint, its traffic, and the instances observed so far."""

    stack: DevStack
    client: stoker.Serverless
    endpoint: stoker.Endpoint
    traffic: Traffic
    market: VastMarket
    wire: Wire
    http: httpx.AsyncClient
    temporal: Client
    watched: set[tuple[int, str]] = field(default_factory=set)
    """Instance and program that were struck: recovered when it serves, or when the instance is gone."""
    ailed: list[tuple[float, str]] = field(default_factory=list)
    """The parts that had not recovered, with the seconds after the fault."""
    launches_known: set[str] = field(default_factory=set)
    """Every launch id that the workflow has reported."""

    async def second_endpoint(
        self, name: str, *, template: str = "text-model", **parameters: Any
    ) -> WorkflowHandle[Any, Any]:
        """Another endpoint with hot workers (`min_workers`, default 1), struck beside the first; its workflow."""
        config = PARAMETERS | SECOND_PARAMETERS | parameters
        made = await self.client.endpoints.create(name, **config)
        await self.client.workergroups.create(
            made.id, **WORKERGROUP | {"search_params": "gpu_name=CPU_M", "template_hash": template}
        )
        async with asyncio.timeout(WHOLE_SECONDS_MAX):
            while True:
                workers = await self.client.endpoints.workers(made.id)
                if sum(worker.status == "idle" for worker in workers) >= config["min_workers"]:
                    break
                await asyncio.sleep(0.2)
        handle = self.temporal.get_workflow_handle(f"endpoint/{name}")
        self.launches_known |= {worker["launch_id"] for worker in await handle.query("workers")}
        return handle

    async def until_released(self, name: str, *, seconds_max: float = WHOLE_SECONDS_MAX) -> None:
        """Returns once the marketplace lists no instance of this endpoint any more."""
        async with asyncio.timeout(seconds_max):
            while True:
                owners = [owner_of(instance.label) for instance in await self.market.list()]
                if not any(owner is not None and owner.endpoint == name for owner in owners):
                    return
                await asyncio.sleep(0.2)

    async def hot(self) -> list[stoker.WorkerRecord]:
        """The workers that are ready."""
        workers = await self.client.endpoints.workers(self.endpoint.id)
        return [worker for worker in workers if worker.status == "idle"]

    async def keep_all_hot(self) -> None:
        """Set `min_load` to more than one worker serves and less than all, by their benchmarks on this machine."""
        async with asyncio.timeout(WHOLE_SECONDS_MAX):
            while True:
                perfs = [
                    each.measured_perf
                    for each in await self.client.endpoints.workers(self.endpoint.id)
                    if each.measured_perf
                ]
                if len(perfs) >= HOT:
                    break
                await asyncio.sleep(0.2)
        await self.client.endpoints.update(self.endpoint.id, min_load=1.3 * max(perfs))

    async def victim(self, program: str) -> int:
        """The pid of this program on a hot instance, which is watched from now on."""
        instance_id = self.traffic.busiest({worker.id for worker in await self.hot()})
        pid = instance_pid(self.stack.state_dir, instance_id, program)
        assert pid is not None, f"no hot instance runs {program}"
        self.watched.add((instance_id, program))
        return pid

    async def ailing(self) -> str:
        """The parts that have not recovered, in a few words; empty if all have."""
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                ready = await self.http.get(f"{self.engine_url}/readyz", timeout=1)
                if ready.status_code != 200:
                    return f"engine: {ready.text[:100]}"
                await self._learn_launches()
                listed = {instance.id for instance in await self.market.list()}
                hot = await self.hot()
                if len(hot) < HOT:
                    return f"{len(hot)} of {HOT} workers are hot"
                for instance_id, program in sorted(self.watched):
                    if instance_id in listed and (ill := await self._ill(instance_id, program)):
                        return ill
                prompt = {"prompt": "whole?", "max_tokens": TOKENS}
                await self.endpoint.request(ROUTE, prompt, cost=TOKENS, retry=False)
        except (stoker.StokerError, MarketError, RPCError, httpx.HTTPError, OSError) as fault:
            return f"{type(fault).__name__}: {fault}"[:200]
        self.watched.clear()
        return ""

    async def _ill(self, instance_id: int, program: str) -> str:
        """Whether the program that was struck serves again, by its own health route."""
        pid = instance_pid(self.stack.state_dir, instance_id, program)
        if pid is None:
            return f"{program} of instance {instance_id} does not run"
        environment = environment_of(pid)
        if program == "worker.py":
            url = f"http://127.0.0.1:{environment['WORKER_PORT']}/healthz"
        else:
            url = f"http://127.0.0.1:{environment['MODEL_PORT']}/health"
        answer = await self.http.get(url, timeout=1)
        return "" if answer.status_code == 200 else f"{url} answers {answer.text[:100]}"

    async def until_whole(self, *, seconds_max: float = WHOLE_SECONDS_MAX) -> float:
        """The time at which every part was found recovered."""
        began = time.monotonic()
        deadline = began + seconds_max
        self.ailed = []
        while ailing := await self.ailing():
            if not self.ailed or self.ailed[-1][1] != ailing:
                self.ailed.append((time.monotonic() - began, ailing))
            if time.monotonic() > deadline:
                raise TimeoutError(f"not whole after {seconds_max:.0f} s: {ailing}")
            await asyncio.sleep(0.1)
        return time.monotonic()

    async def leaked(self, *, seconds_max: float = 90.0) -> tuple[int, float]:
        """Instances that are rented and missing from the endpoint's state, or twice in it, after the time to reconcile;
        and the dollars of instances that were never in its state."""
        deadline = time.monotonic() + seconds_max
        while True:
            with contextlib.suppress(
                stoker.StokerError, MarketError, RPCError, httpx.HTTPError, TimeoutError
            ):
                async with asyncio.timeout(10):
                    known = await self._learn_launches()
                    listed = [
                        launch_of(instance.label)
                        for instance in await self.market.list()
                        if not self._is_strangers(instance.label)
                    ]
                    unknown = [launch for launch in listed if launch not in known]
                    over = len(unknown) + len(listed) - len(set(listed))
                    if not over or time.monotonic() > deadline:
                        return over, await self._dollars_unknown()
            if time.monotonic() > deadline:
                raise TimeoutError("the books could not be compared")
            await asyncio.sleep(0.5)

    def _is_strangers(self, label: str | None) -> bool:
        owner = owner_of(label)
        return owner is not None and owner.deployment not in {None, self.stack.deployment}

    async def charges(self) -> list[dict[str, Any]]:
        """The marketplace's charges for each instance, including destroyed ones."""
        answer = await self.http.get(
            f"{self.stack.settings.market_url}/host/charges/",
            headers={"Authorization": f"Bearer {self._keys.market_key}"},
            timeout=5,
        )
        rows: list[dict[str, Any]] = answer.raise_for_status().json()["instances"]
        return rows

    async def relabel(self, instance_id: int, label: str) -> None:
        """As a person does in the marketplace's console."""
        await self.host("PUT", f"/api/v0/instances/{instance_id}/", {"label": label})

    async def host(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """A call of the host marketplace with its own key."""
        answer = await self.http.request(
            method,
            f"{self.stack.settings.market_url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._keys.market_key}"},
            timeout=5,
        )
        answer.raise_for_status()

    @property
    def engine_url(self) -> str:
        """The engine's own address; only the workers use the wire."""
        return self.stack.settings.engine.own_url

    @property
    def _keys(self) -> Any:
        assert self.stack.keys is not None
        return self.stack.keys

    async def _learn_launches(self) -> set[str]:
        """The launch ids in the workflow's state, by a query."""
        handle = self.temporal.get_workflow_handle(f"endpoint/{self.endpoint.name}")
        workers = await handle.query("workers", rpc_timeout=timedelta(seconds=1))
        now = {worker["launch_id"] for worker in workers}
        self.launches_known |= now
        return now

    async def _dollars_unknown(self) -> float:
        return sum(
            row["dollars"]
            for row in await self.charges()
            if launch_of(row["label"]) not in self.launches_known
        )


def environment_of(pid: int) -> dict[str, str]:
    """The process' environment as it started."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def launch_of(label: str | None) -> str:
    """The launch id in an instance's label."""
    owner = owner_of(label)
    return owner.launch_id if owner else f"unlabelled {label}"


@contextlib.asynccontextmanager
async def staged(state_dir: Path) -> AsyncIterator[Stage]:
    """A deployment with two hot workers and traffic; at the end the endpoint is deleted, and nothing may be left."""
    settings = load_settings(ROOT / "temporal-dev.yaml")
    engine_port = free_port()
    wire = Wire(engine_port)
    await wire.start()
    stack = DevStack(
        settings.model_copy(
            update={
                "state_dir": state_dir,
                "sweep": SWEEP,
                "temporal": settings.temporal.model_copy(
                    update={"port": free_port(), "ui_port": free_port()}
                ),
                "engine": settings.engine.model_copy(
                    update={"port": engine_port, "public_url": f"http://127.0.0.1:{wire.port}"}
                ),
                "dashboard": settings.dashboard.model_copy(update={"port": None}),
                "host_market": settings.host_market.model_copy(
                    update={
                        "port": free_port(),
                        "templates": (*settings.host_market.templates, ODD_MODEL),
                    }
                ),
            }
        )
    )
    await stack.start()
    assert stack.keys is not None
    market = VastMarket(stack.settings.market_url, stack.keys.market_key)
    try:
        async with (
            stoker.Serverless(stack.keys.account_key, url=f"http://127.0.0.1:{engine_port}") as client,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            made = await client.endpoints.create("faults", **PARAMETERS)
            await client.workergroups.create(made.id, **WORKERGROUP)
            endpoint = await client.get_endpoint("faults")
            stage = Stage(
                stack, client, endpoint, Traffic(endpoint), market, wire, http, await stack.client()
            )
            await stage.keep_all_hot()
            await stage.until_whole()
            stage.traffic.start()
            try:
                yield stage
            finally:
                await stage.traffic.stop()
    finally:
        await market.close()
        await wire.close()
        await stack.stop()


@contextlib.contextmanager
def small_disk(where: Path, *, megabytes: int) -> Any:
    """A separate small disk for the state folder, so that it can be filled. Needs root."""
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "stoker-faults", str(where)],
        check=True,
    )
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def can_mount() -> bool:
    """Whether a small disk can be made here."""
    return os.geteuid() == 0
