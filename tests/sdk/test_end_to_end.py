"""The client with real parts: Temporal, endpoint workflow, engine, and a worker in front of a model.

The marketplace is a fake in memory. The test starts the worker with the environment of the launch.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

import stoker
from activities.instances import MarketActivities
from activities.secrets import DeploymentSecrets
from engine.app import start_server
from engine.settings import EngineSettings, Timing
from market.fake import FakeInstance, FakeMarket
from run.state_folder.lock import free_port
from stoker.control import Control
from stoker_wire.messages import SEARCH_ATTRIBUTES
from tests.workflows.world import make_market
from workflows.temporal_worker.worker import WorkerSettings, build_workers

EXAMPLE = Path(__file__).parents[2] / "examples" / "text_model"
SECRET = b"a secret of the tests, 32 bytes!"
KEY = "alice-key-0123456789"
PEM = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
KINDS = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Int": SearchAttributeKey.for_int,
    "Double": SearchAttributeKey.for_float,
    "Datetime": SearchAttributeKey.for_datetime,
}


class Deployment:
    """The deployment without rented machines."""

    def __init__(self, env: WorkflowEnvironment, market: FakeMarket, port: int, folder: Path) -> None:
        self.env = env
        self.market = market
        self.port = port
        self.folder = folder
        self.processes: list[asyncio.subprocess.Process] = []
        self.server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start_engine(self) -> None:
        settings = EngineSettings(
            accounts={"alice": KEY},
            secret=SECRET,
            rsa_private_key_pem=PEM,
            port=self.port,
            timing=Timing(watch_seconds=0.1),
        )
        self.server = await start_server(settings, self.env.client)

    async def stop_engine(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            await server.close()

    async def rented(self) -> FakeInstance:
        """The first machine that the workflow rents."""
        async with asyncio.timeout(60):
            while not self.market.instances:
                await asyncio.sleep(0.01)
        return next(iter(self.market.instances.values()))

    async def boot(self, instance: FakeInstance) -> None:
        """Run the template with the environment of the launch, as a host does."""
        port, model_port = free_port(), free_port()
        given = {name: value for name, value in instance.launch.env.items() if not name.startswith("-p ")}
        environ = (
            os.environ
            | given
            | {
                "CONTAINER_ID": str(instance.id),
                "PUBLIC_IPADDR": "127.0.0.1",
                "WORKER_PORT": str(port),
                f"VAST_TCP_PORT_{port}": str(port),
                "MODEL_PORT": str(model_port),
                "MODEL_LOG": str(self.folder / "model.log"),
            }
        )
        log = (self.folder / "model.log").open("ab")
        for script, output in (("model_server.py", log), ("worker.py", asyncio.subprocess.DEVNULL)):
            self.processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(EXAMPLE / script),
                    cwd=self.folder,
                    env=environ,
                    stdout=output,
                    stderr=output,
                )
            )
        log.close()

    async def close(self) -> None:
        for process in self.processes:
            process.kill()
            await process.wait()
        await self.stop_engine()


@pytest.fixture
async def deployment(tmp_path) -> AsyncIterator[Deployment]:
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        search_attributes=[KINDS[kind](name) for name, kind in SEARCH_ATTRIBUTES.items()],
        data_converter=pydantic_data_converter,
    )
    market = make_market(time.time, pull_seconds=0.0, start_seconds=0.0)
    deployment = Deployment(env, market, free_port(), tmp_path)
    secrets = DeploymentSecrets(
        hmac_secret=SECRET, named={"HF_TOKEN": "hf_of_the_tests"}, report_address=deployment.url
    )
    hurry = WorkerSettings(market_calls_per_second=10_000, graceful_shutdown_seconds=1)
    async with env, AsyncExitStack() as stack:
        for worker in build_workers(env.client, MarketActivities(market, secrets), hurry):
            await stack.enter_async_context(worker)
        await deployment.start_engine()
        yield deployment
        await deployment.close()


async def test_a_client_is_served_from_zero_workers_through_a_restart_to_deletion(deployment):
    waits: list[stoker.Wait] = []
    async with stoker.Serverless(KEY, url=deployment.url, timeout=90) as client:
        record = await client.endpoints.create("llm", max_workers=1, min_workers=0, min_load=1)
        await client.workergroups.create("llm", template_hash="tmpl", test_workers=1)
        endpoint = await client.get_endpoint("llm")
        prompt = {"prompt": "The stoker", "max_tokens": 8, "seed": 3}

        # without a worker the request waits, and on_wait reports the reason
        first = endpoint.submit("/v1/completions", prompt, cost=8, on_wait=waits.append)
        instance = await deployment.rented()
        await deployment.boot(instance)
        answer = await first
        assert answer.json()["choices"][0]["text"]
        assert answer.worker_id == instance.id
        assert answer.timing.waited_s > 0
        assert answer.timing.model_s is not None

        async with endpoint.stream("/v1/completions", prompt | {"stream": True}, cost=8) as stream:
            pieces = [event.json() async for event in stream]
        assert len(pieces) >= 8

        async with endpoint.session(cost=8, lifetime=30) as session:
            again = await session.request("/v1/completions", prompt)
            assert again.json()["choices"] == answer.json()["choices"]

        # an engine restart is no error
        await deployment.stop_engine()
        during = [endpoint.submit("/v1/completions", prompt, cost=8) for _ in range(5)]
        await deployment.start_engine()
        for submission in during:
            assert (await submission).json()["choices"] == answer.json()["choices"]

        with pytest.raises(stoker.ModelError, match="max_tokens"):
            await endpoint.request("/v1/completions", {"max_tokens": "many"})

        (worker,) = await endpoint.workers()
        assert (worker.id, worker.status) == (instance.id, "idle")
        assert worker.measured_perf > 0
        assert (await endpoint.status())["id"] == record.id
        assert any(line["kind"] == "recruit" for line in await endpoint.decisions(tail=50))
        assert (await endpoint.costs())["dollars"] >= 0
        assert "recruit" in (await endpoint.logs()).info0

        old = endpoint
        key = await client.endpoints.rotate_key("llm")
        assert key != record.key
        assert (await old.request("/v1/completions", prompt, cost=8)).status == 200

        await endpoint.delete()
        with pytest.raises(stoker.EndpointNotFound):
            await endpoint.request("/v1/completions", prompt)
        control = Control(deployment.env.client)
        async with asyncio.timeout(60):
            while (await control.workers("llm"))[0]["drain"] is None:
                await asyncio.sleep(0.01)
        assert (await control.status("llm"))["state"] == "deleting"
    assert {wait.reason for wait in waits} <= {"recruiting", "booting", "busy", "no_capacity"}
