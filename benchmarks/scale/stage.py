"""The measured deployment: the parts of `stokerd dev`, with their own state folder, over the benchmark's marketplace."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from benchmarks.scale.clients import Clients
from benchmarks.scale.events import Events
from benchmarks.scale.fake_workers import FakeWorkers
from benchmarks.scale.market import Called, Marketplace, Rented
from benchmarks.scale.seed import Part, Seeded, part_of, prepare
from run.commands.dev import DevStack
from run.settings import DeploymentSettings, load_settings
from run.state_folder.keys import load_keys
from run.state_folder.lock import free_port
from stoker_wire.control import EndpointSpec
from stoker_wire.security.token import mint_worker_token

ROOT = Path(__file__).parents[2]


def settings_for(state_dir: Path, market_port: int, calls_per_second_max: float) -> DeploymentSettings:
    """`temporal-dev.yaml` on free ports, with the benchmark's marketplace."""
    settings = load_settings(ROOT / "temporal-dev.yaml")
    return settings.model_copy(
        update={
            "state_dir": state_dir,
            "temporal": settings.temporal.model_copy(update={"port": free_port(), "ui_port": None}),
            "engine": settings.engine.model_copy(update={"port": free_port(), "public_url": None}),
            "dashboard": settings.dashboard.model_copy(update={"port": None}),
            "market": settings.market.model_copy(
                update={
                    "kind": "vast",
                    "url": f"http://127.0.0.1:{market_port}",
                    "calls_per_second_max": calls_per_second_max,
                }
            ),
        }
    )


class Stage:
    """Everything around the measurement."""

    def __init__(self, state_dir: Path, *, calls_per_second_max: float) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._market_port = free_port()
        self.settings = settings_for(state_dir, self._market_port, calls_per_second_max)
        file = state_dir / "keys.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"market_key": "benchmark-market-key"}))
        keys = load_keys(state_dir, generate=True, uses_vast=True)
        self.secret, self.account_key = keys.secret, keys.account_key
        self.stack = DevStack(self.settings)
        self.market = Marketplace(keys.market_key)
        self.fake_workers = FakeWorkers(self.settings.engine.port, self._credentials)
        self.clients = Clients(self.settings.engine.port, self.fake_workers)
        self.events = Events()
        self.endpoints: list[Seeded] = []
        self.known = 0
        self.scrape_seconds = 0.0
        self.scrape_faults: list[str] = []
        self._ids: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Marketplace and deployment, until the block ends."""
        runner = web.AppRunner(self.market.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._market_port, backlog=1024).start()
            self.market.runs = self._runs
            self.market.stops = self.fake_workers.leave
            self.market.heard = self._heard
            await self.stack.start()
            try:
                yield
            finally:
                self.clients.close()
                self.fake_workers.close()
                await self.stack.stop()
        finally:
            await runner.cleanup()

    def seed(self, endpoints: int, workers: int, part: Part | None = None) -> list[EndpointSpec]:
        """Adds endpoints with their machines; their workflows are not started yet. `part`: of all of them."""
        market, secret, deployment = self.market, self.secret, self.stack.deployment
        made = [
            prepare(number, part or part_of(number), workers, market, secret, deployment)
            for number in range(endpoints)
        ]
        self.endpoints = [seeded for seeded, _ in made]
        self._ids = {seeded.name: seeded.id for seeded in self.endpoints}
        return [spec for _, spec in made]

    def _credentials(self, one: Rented) -> tuple[str, str]:
        """A worker's token and report path, from the environment that the create call set."""
        if one.env:
            return one.env["MASTER_TOKEN"], one.env["REPORT_ADDR"].removeprefix(self.settings.engine.url)
        return mint_worker_token(self.secret, self._ids[one.endpoint], one.label.rpartition(":")[2]), ""

    def _runs(self, one: Rented) -> None:
        self.fake_workers.leave(one)
        self.fake_workers.join(one, loaded=False)

    def _heard(self, call: Called) -> None:
        self.events.called(call)

    def pids(self) -> dict[str, int]:
        """The deployment's processes."""
        return self.stack.pids

    def restarts(self) -> int:
        """Number of process restarts."""
        return sum(child.restarts for child in self.stack.supervisor.children.values())
