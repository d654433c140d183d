"""The console API against the real workflow: the Vast routes for endpoints and workergroups."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from activities.instances import MarketActivities
from activities.secrets import DeploymentSecrets
from market.fake import FakeMarket
from stoker_wire.market import Offer, Template
from tests.engine.conftest import ALICE, BOB, SECRET, Stage, start_temporal
from tests.engine.standin import until
from workflows.worker import WorkerSettings, build_workers

SECRETS = DeploymentSecrets(hmac_secret=SECRET, named={}, report_address="http://127.0.0.1:1")
TEMPLATE = Template(id=7, hash_id="tmpl", name="echo", image="img", env="-e MODEL=small")
OFFERS = [
    Offer(id=100 + n, machine_id=500 + n, gpu_name="RTX 4090", gpu_ram=24_000, dph_total=0.3, dlperf=60.0)
    for n in range(10)
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def real_temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server with the real workflow over a marketplace in memory."""
    env = await start_temporal()
    market = FakeMarket(OFFERS, clock=time.time, templates=[TEMPLATE], pull_seconds=0.2, start_seconds=0.1)
    activities = MarketActivities(market, SECRETS)
    rate = WorkerSettings(market_calls_per_second=100.0, graceful_shutdown_seconds=1.0)
    workers = build_workers(env.client, activities, rate)
    running = [asyncio.ensure_future(worker.run()) for worker in workers]
    yield env
    for worker in workers:
        await worker.shutdown()
    await asyncio.gather(*running)
    await env.shutdown()


class Console:
    """One account's calls."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage = stage
        self.key = key

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.stage.call(method, path, body, key=self.key)

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answered = await self(method, path, body)
        assert status == 200, answered
        return answered

    async def create(self, name: str, **config: Any) -> int:
        answered = await self.good("POST", "/api/v0/endptjobs/", {"endpoint_name": name} | config)
        return answered["result"]


@pytest_asyncio.fixture(loop_scope="session")
async def real_stage(real_temporal: WorkflowEnvironment) -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as http:
        stage = Stage(real_temporal, http)
        await stage.start_engine()
        yield stage
        await stage.close()


@pytest.fixture
def alice(real_stage: Stage) -> Console:
    return Console(real_stage, ALICE)


@pytest.fixture
def bob(real_stage: Stage) -> Console:
    return Console(real_stage, BOB)


async def test_what_is_created_is_listed_at_once_with_the_fields_that_the_official_client_demands(
    alice: Console,
) -> None:
    endpoint_id = await alice.create("listed", max_workers=3, cold_workers=2, max_queue_time=None, client_id="me")

    listed = (await alice.good("GET", "/api/v0/endptjobs/?client_id=me"))["results"]

    row = next(row for row in listed if row["id"] == endpoint_id)
    assert row["endpoint_name"] == "listed"
    assert row["api_key"].startswith(f"sk-ep-{endpoint_id}-1-")
    assert isinstance(row["user_id"], int)
    assert row["created_at"] == pytest.approx(time.time(), abs=60)
    assert (row["max_workers"], row["min_workers"], row["cold_workers"], row["max_queue_time"]) == (3, 2, 2, 30.0)
    shown = await alice.good("GET", f"/api/v0/endptjobs/{endpoint_id}/")
    assert shown["result"] == row
