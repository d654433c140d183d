"""The engine under calls of every kind, from its own document: real workflows behind it, a real marketplace beside
it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from activities.instances import MarketActivities
from activities.messages import read_label
from activities.secrets import DeploymentSecrets
from engine.app import start_server
from engine.settings import Timing
from engine.tls import certificate_authority
from hosts import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from market.fake import FakeMarket
from stoker_wire.market import Offer, Template
from stoker_wire.security.token import mint_worker_token
from tests.engine.conftest import ALICE, SECRET, settings, start_temporal
from tests.fuzz.calls import Server
from tests.fuzz.live import live, served
from tests.fuzz.size import examples
from workflows.temporal_worker.worker import WorkerSettings, build_workers

T = TypeVar("T")
MARKET_KEY = "market-key-0123456789"
CA_PEM = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
VICTIMS = 4
"""Endpoints that calls may change and delete; `main` is only routed to."""


class Stage:
    """Everything around the engine: one endpoint with two ready workers, and several to be changed and deleted."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http
        self.hints: dict[str, list[Any]] = {}

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A valid call."""
        keyed = {"Authorization": f"Bearer {ALICE}"}
        async with self.http.request(method, self.url + path, json=body, headers=keyed) as reply:
            said = await reply.json()
            assert reply.status == 200, said
            return said

    async def endpoint(self, name: str, **config: Any) -> tuple[int, int]:
        """A new endpoint with a workergroup: both ids."""
        made = await self.call("POST", "/api/v0/endptjobs/", {"endpoint_name": name, **config})
        body = {"endpoint_id": made["result"], "template_hash": "sleeper", "search_params": ""}
        return made["result"], (await self.call("POST", "/api/v0/workergroups/", body))["id"]


@contextlib.asynccontextmanager
async def host_market(folder: Path) -> AsyncIterator[str]:
    terms = HostMarketSettings(
        state_dir=folder,
        api_keys=(MARKET_KEY,),
        machines=(MachineSettings(name="CPU", count=2, dollars_per_hour=0.1),),
        templates=(TemplateSettings(name="sleeper", onstart="exec sleep 100", hash_id="sleeper"),),
        cpu_limit="off",
    )
    async with served(create_app(terms, gpus=list)) as url:
        yield url


@contextlib.asynccontextmanager
async def model() -> AsyncIterator[str]:
    """A worker's HTTP side: it answers every request."""

    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"got": (await request.json())["payload"]})

    app = web.Application()
    app.router.add_post("/v1/{path:.+}", echo)
    async with served(app) as url:
        yield url


async def patiently(start: Callable[[], Awaitable[T]]) -> T:
    """The library allows five seconds for the server's start; on a busy machine it is tried again."""
    for _ in range(3):
        with contextlib.suppress(RuntimeError):
            return await start()
    return await start()


@contextlib.asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        temporal = await patiently(start_temporal)
        stack.push_async_callback(temporal.shutdown)
        offers = [Offer(id=n, machine_id=n, gpu_name="GPU", dph_total=0.1, dlperf=9) for n in range(1, 30)]
        template = Template(id=1, hash_id="sleeper", name="sleeper", image="host")
        fake = FakeMarket(offers, clock=time.time, templates=[template], pull_seconds=0, start_seconds=0)
        hands = MarketActivities(
            fake, DeploymentSecrets(hmac_secret=SECRET, named={}, report_address="http://e")
        )
        rate = WorkerSettings(market_calls_per_second=100.0, graceful_shutdown_seconds=1.0)
        for worker in build_workers(temporal.client, hands, rate):
            await stack.enter_async_context(worker)
        market_url = await stack.enter_async_context(host_market(folder))
        given_settings = settings(
            market_url=market_url,
            market_key=MARKET_KEY,
            ca_key_pem=CA_PEM,
            timing=Timing(watch_seconds=0.05, hold_seconds=0.02, temporal_call_seconds=60.0),
        )
        # A plain client is held for minutes until a worker is ready; most endpoints here never have one.
        stack.enter_context(mock.patch("engine.api.openai_queue.WAIT_SECONDS_MAX", 1.0))
        server = await start_server(given_settings, temporal.client)
        stack.push_async_callback(server.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        made = Stage(server.url, http)
        await _furnish(made, fake, await stack.enter_async_context(model()), stack)
        yield made


async def _furnish(made: Stage, fake: FakeMarket, url: str, stack: contextlib.AsyncExitStack) -> None:
    calm = {"min_workers": 0, "min_load": 0, "max_workers": 1}
    victims = [await made.endpoint(f"victim-{number}", **calm) for number in range(VICTIMS)]
    main, group = await made.endpoint("main", min_workers=2, max_workers=2, max_queue_time=1e9)
    async with asyncio.timeout(30):
        while len(workers := await made.call("POST", "/get_endpoint_workers/", {"id": main})) < 2 or not all(
            row["id"] for row in workers
        ):
            await asyncio.sleep(0.05)
    assert all(read_label(one.launch.label) for one in fake.instances.values())
    first, second = workers
    tokens = [mint_worker_token(SECRET, main, row["launch_id"]) for row in workers]
    report = {"id": first["id"], "mtoken": tokens[0], "loadtime": 1.0, "max_perf": 100.0, "url": url}

    async def reports() -> None:
        while True:
            await made.call("POST", "/worker_status/", report)
            await asyncio.sleep(1.0)

    reporting = asyncio.create_task(reports())
    stack.callback(reporting.cancel)
    key = (await made.call("GET", f"/api/v0/endptjobs/{main}/"))["result"]["api_key"]
    ids = [endpoint for endpoint, _ in victims] + [one for _, one in victims]
    made.hints = {
        "id": [*ids, second["id"], group], "endpoint_id": [endpoint for endpoint, _ in victims],
        "endpoint_name": ["fresh", "victim-1", "victim-2"], "endpoint": ["main", "victim-1", "nobody"],
        "mtoken": [tokens[1]], "worker_id": [second["id"]], "url": [url, ""], "api_key": [ALICE, key, "no"],
        "launch": [second["launch_id"]], "instance_id": [first["id"], second["id"]],
        "workergroup_id": [one for _, one in victims], "template_hash": ["sleeper", "none"], "template_id": [1],
        "request_idx": [0, 1, 5], "cost": [0, 1, 100], "tail": [1, 5],
        "path": ["chat/completions", "completions", "embeddings"],
        "launch_args": ["", "--disk 5", "--env '-e A=b'", "--onstart-cmd 'a", "--nonsense"],
        "search_params": ["", "num_gpus=1", "gpu_name", {"gpu_ram": {"gte": "x"}}, [{"a": {"eq": None}}]],
        "select_filters": ['{"name": {"eq": "x"}}', '{"a": {"gte": NaN}}', "[1]"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        # How long a certificate request waits for an unknown instance.
        patch.setattr(certificate_authority, "_UNKNOWN_SECONDS_MAX", 0.01)
        patch.setattr(certificate_authority, "_ADDRESS_SECONDS_MAX", 0.01)
        with live(lambda: stage(tmp_path_factory.mktemp("engine") / "market")) as (made, running):
            document = running.call(made.call("GET", "/openapi.json"))
            host, _, port = made.url.removeprefix("http://").partition(":")
            yield Server((host, int(port)), document, key=ALICE, hints=made.hints)


@examples(60, 3000)
@given(data=st.data())
def test_every_call_is_answered_as_documented(server: Server, data: st.DataObject) -> None:
    server.check(data.draw(server.calls(), label="call"))
    server.healthy()
