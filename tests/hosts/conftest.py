"""Fixtures: a host marketplace with real processes, and the controller's client."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from aiohttp import web

from hosts import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from hosts.agent import proc
from hosts.api.http import HOST
from market.interface import InstanceGone, Launch, OfferQuery
from market.vast.client import VastMarket

KEY = "test-key-0123456789"
SERVER = 'exec python -m http.server --bind 127.0.0.1 "$WORKER_PORT"'
SLEEPER = "exec sleep 1000"
ROOT = Path(__file__).parents[2]


def settings_for(state_dir: Path, **changes) -> HostMarketSettings:
    given = {
        "state_dir": state_dir,
        "api_keys": (KEY,),
        "machines": (
            MachineSettings(name="CPU small", count=2, dollars_per_hour=0.10, dlperf=10, cpu_percent=50),
            MachineSettings(
                name="CPU large", count=1, dollars_per_hour=0.30, dlperf=40, min_bid_dollars_per_hour=0.05
            ),
        ),
        "templates": (
            TemplateSettings(name="http server", onstart=SERVER, hash_id="server", env="-e FROM=template"),
            TemplateSettings(name="sleeper", onstart=SLEEPER, hash_id="sleeper"),
        ),
    }
    return HostMarketSettings(**{**given, **changes})


async def until(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 30.0, what: str = "condition"
):
    """Poll the condition and return its first true result; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        await asyncio.sleep(0.02)


class Bench:
    """A running marketplace as a client sees it."""

    def __init__(self, url: str, app: web.Application | None = None) -> None:
        self.app = app
        self.url = url
        self.market = VastMarket(url, KEY)
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30
        )

    @property
    def host(self):
        return self.app[HOST]

    async def offers(self, **query):
        return await self.market.search(OfferQuery(**{"filters": {}, **query}))

    async def offer(self, kind: str = "CPU small") -> int:
        return (await self.offers(filters={"gpu_name": {"eq": kind}}))[0].id

    async def rent(self, *, kind: str = "CPU small", label: str = "stoker:test:0", **launch) -> int:
        if not {"onstart", "args", "template_hash", "template_id"} & launch.keys():
            launch["template_hash"] = "sleeper"
        launch = {"disk_gb": 1.0, **launch}
        return await self.market.create(await self.offer(kind), Launch(label=label, **launch))

    async def row(self, instance_id: int) -> dict:
        return (await self.http.get(f"/api/v0/instances/{instance_id}/")).json()["instances"]

    async def reaches(self, instance_id: int, status: str):
        """Wait until the instance has this actual status, and return it."""

        async def there():
            instance = await self.market.show(instance_id)
            return instance if instance.actual_status == status else None

        return await until(there, what=f"instance {instance_id} {status}")

    async def gone(self, instance_id: int) -> bool:
        with contextlib.suppress(InstanceGone):
            await self.market.show(instance_id)
            return False
        return True

    async def arm(self, **fault) -> None:
        (await self.http.post("/host/faults/", json=fault)).raise_for_status()

    async def printed(self, instance_id: int, text: str) -> str:
        """Wait until the instance's log contains the text, and return the log."""

        async def there():
            log = await self.market.logs(instance_id)
            return log if text in log else None

        return await until(there, what=f"{text!r} in the log")

    async def close(self) -> None:
        await self.market.close()
        await self.http.aclose()


@contextlib.asynccontextmanager
async def running(terms: HostMarketSettings, *, gpus=list) -> AsyncIterator[Bench]:
    runner = web.AppRunner(create_app(terms, gpus=gpus), access_log=None)
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        bench = Bench(f"http://127.0.0.1:{runner.addresses[0][1]}", runner.app)
        try:
            yield bench
        finally:
            await bench.close()
    finally:
        await runner.cleanup()


class MarketProcess:
    """The marketplace as a separate process, which a test can kill."""

    def __init__(self, terms: HostMarketSettings, folder: Path) -> None:
        self.file = folder / f"settings-{terms.state_dir.name}.json"
        body = json.loads(terms.model_dump_json())
        body["api_keys"] = [key.get_secret_value() for key in terms.api_keys]
        self.file.write_text(json.dumps(body))
        self.errors = folder / "market.err"
        self.start()

    def start(self) -> None:
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hosts", "--settings", str(self.file)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PARENT_SECRET": "not for instances"},
            )
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, self.errors.read_text()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.stdout.close()
        return self.process.wait(30)


@pytest.fixture
def tools():
    return SimpleNamespace(
        settings_for=settings_for, running=running, until=until, alive=alive, Bench=Bench, KEY=KEY
    )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(settings_for(tmp_path / "market")) as one:
        yield one


@pytest.fixture
def market_process(tmp_path: Path) -> Iterator[Callable[..., MarketProcess]]:
    """Starts a marketplace process; it and its instances are stopped after the test."""
    started: list[MarketProcess] = []

    def start(**changes) -> MarketProcess:
        one = MarketProcess(settings_for(changes.pop("state_dir", tmp_path / "market"), **changes), tmp_path)
        started.append(one)
        return one

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)
    left = [pid for pid in proc.tagged("") if str(tmp_path) in environment_of(pid)]
    proc.send(left, signal.SIGKILL)


def environment_of(pid: int) -> str:
    """The process's environment as text; empty if it has exited."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
