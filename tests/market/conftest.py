"""A host marketplace with real processes, and the client that the controller uses."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from market.host import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from market.host.http import HOST
from market.port import InstanceGone, Launch, OfferQuery
from market.vast import VastMarket

KEY = "test-key-0123456789"
SERVER = 'exec python -m http.server --bind 127.0.0.1 "$WORKER_PORT"'


def settings_for(state_dir: Path, **changes) -> HostMarketSettings:
    given = {
        "state_dir": state_dir,
        "api_keys": (KEY,),
        "stop_grace_seconds": 5.0,
        "machines": (
            MachineSettings(name="CPU small", count=2, dollars_per_hour=0.10, dlperf=10, cpu_percent=50),
            MachineSettings(
                name="CPU large", count=1, dollars_per_hour=0.30, dlperf=40, min_bid_dollars_per_hour=0.05
            ),
        ),
        "templates": (TemplateSettings(name="http server", onstart=SERVER, hash_id="server"),),
    }
    return HostMarketSettings(**{**given, **changes})


async def until(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 30.0, what: str = "condition"
):
    """The condition's first true answer; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:.0f} s"
        await asyncio.sleep(0.02)


class Bench:
    """A running host marketplace and its client."""

    def __init__(self, app: web.Application, url: str) -> None:
        self.app = app
        self.url = url
        self.market = VastMarket(url, KEY)
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        )

    @property
    def host(self):
        return self.app[HOST]

    async def offer(self, kind: str = "CPU small") -> int:
        offers = await self.market.search(OfferQuery(filters={"gpu_name": {"eq": kind}}))
        return offers[0].id

    async def rent(self, *, kind: str = "CPU small", label: str = "stoker:test:0", **launch) -> int:
        if not {"onstart", "args", "template_hash", "template_id"} & launch.keys():
            launch["template_hash"] = "server"
        return await self.market.create(await self.offer(kind), Launch(label=label, disk_gb=1.0, **launch))

    async def reaches(self, instance_id: int, status: str):
        """The instance once it has that actual status."""

        async def there():
            instance = await self.market.show(instance_id)
            return instance if instance.actual_status == status else None

        return await until(there, what=f"instance {instance_id} {status}")

    async def gone(self, instance_id: int) -> None:
        async def missing():
            with contextlib.suppress(InstanceGone):
                await self.market.show(instance_id)
                return False
            return True

        await until(missing, what=f"end of {instance_id}")

    async def arm(self, **fault) -> None:
        (await self.http.post("/host/faults/", json=fault)).raise_for_status()

    async def printed(self, instance_id: int, text: str) -> str:
        """The instance's log once it holds the text."""

        async def there():
            log = await self.market.logs(instance_id)
            return log if text in log else None

        return await until(there, what=f"{text!r} in the log")

    async def close(self) -> None:
        await self.market.close()
        await self.http.aclose()


@contextlib.asynccontextmanager
async def running(settings: HostMarketSettings) -> AsyncIterator[Bench]:
    app = create_app(settings, gpus=list)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        bench = Bench(app, f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            yield bench
        finally:
            await bench.close()
    finally:
        await runner.cleanup()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(settings_for(tmp_path / "market")) as one:
        yield one


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
