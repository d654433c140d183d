"""One Temporal dev server, real engines on it, and workers that report by HTTP."""

import asyncio
import io
import itertools
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.app import Server, start_server
from engine.settings import EngineSettings, Timing
from stoker_wire.control import TASK_QUEUE, EndpointSpec, workflow_id
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import SEARCH_ATTRIBUTES
from stoker_wire.security.token import mint_endpoint_key, mint_worker_token
from stoker_wire.states import WorkerState
from tests.engine.fake_endpoint_workflow import FakeEndpointWorkflow, until
from tests.environments import python_of
from workflows.temporal_worker.converter import data_converter

SECRET = b"a secret of the tests, 32 bytes!"
ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
_PEM = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
_KEYS = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Int": SearchAttributeKey.for_int,
    "Double": SearchAttributeKey.for_float,
    "Datetime": SearchAttributeKey.for_datetime,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder share one event loop, because they share one Temporal server."""
    for item in items:
        if "tests/engine/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


_PROBLEMS_ATTRIBUTE = "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute"
"""Two instead of five: the server waits 10 s and more between later attempts."""


async def start_temporal() -> WorkflowEnvironment:
    return await WorkflowEnvironment.start_local(
        dev_server_extra_args=["--dynamic-config-value", f"{_PROBLEMS_ATTRIBUTE}=2"],
        data_converter=data_converter,
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        search_attributes=[_KEYS[kind](name) for name, kind in SEARCH_ATTRIBUTES.items()],
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server on which the stand-in runs as every endpoint's workflow."""
    env = await start_temporal()
    worker = Worker(
        env.client,
        task_queue=TASK_QUEUE,
        workflows=[FakeEndpointWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        yield env
    await env.shutdown()


def settings(**changes: Any) -> EngineSettings:
    made = EngineSettings(
        accounts={"alice": ALICE, "bob": BOB},
        secret=SECRET,
        rsa_private_key_pem=_PEM,
        port=0,
        timing=Timing(watch_seconds=0.05),
    )
    return made.but(**changes)


class WorkerDouble:
    """The reporting part of a worker: sends the test's values with its own token to any engine."""

    def __init__(self, stage: "Stage", endpoint_id: int, launch_id: str, instance_id: int) -> None:
        self.stage = stage
        self.endpoint_id = endpoint_id
        self.launch_id = launch_id
        self.instance_id = instance_id
        self.token = mint_worker_token(SECRET, endpoint_id, launch_id)
        self.url = f"http://10.0.0.{instance_id % 250 + 1}:3000"

    def member(self, state: WorkerState = WorkerState.READY, **changes: Any) -> dict[str, Any]:
        """Its entry in the memo."""
        return {
            "l": self.launch_id,
            "i": self.instance_id,
            "g": 1,
            "s": state.value,
            "k": "1x RTX 4090",
            "t": time.time(),
        } | changes

    def status(self, **changes: Any) -> dict[str, Any]:
        """A report: loaded, 100 load/s, idle."""
        return {
            "id": self.instance_id,
            "mtoken": self.token,
            "loadtime": 12.5,
            "max_perf": 100.0,
            "cur_load": 0.0,
            "url": self.url,
        } | changes

    async def report(self, server: Server | None = None, **changes: Any) -> None:
        status, body = await self.stage.post("/worker_status/", self.status(**changes), server=server)
        assert (status, body) == (200, {"success": True})

    async def finish(
        self,
        *indices: int,
        success: bool = True,
        times: tuple[float, ...] | None = None,
        server: Server | None = None,
    ) -> dict[str, Any]:
        """Report the end of requests. `times`: when they were queued, started, completed, and had first bytes."""
        names = ("entered_queue_at", "work_started_at", "work_completed_at", "work_first_byte_at")
        more = dict(zip(names, times, strict=False)) if times else {}
        ended = {
            "worker_id": self.instance_id,
            "mtoken": self.token,
            "requests": [{"request_idx": i, "success": success, "status": "Success"} | more for i in indices],
        }
        status, body = await self.stage.post("/delete_requests/", ended, server=server)
        assert status == 200
        return body


class EndpointDouble:
    """An endpoint whose workflow is the stand-in."""

    def __init__(self, stage: "Stage", spec: EndpointSpec) -> None:
        self.stage = stage
        self.id = spec.endpoint_id
        self.name = spec.endpoint_name
        self.key = mint_endpoint_key(SECRET, self.id, 1)
        self.handle = stage.env.client.get_workflow_handle(workflow_id(self.name))

    def worker(self, launch_id: str = "aaaaaaaaaaaa", instance_id: int = 101) -> WorkerDouble:
        return WorkerDouble(self.stage, self.id, launch_id, instance_id)

    async def script(self, **changes: Any) -> None:
        """Change the memo, and wait until every engine has read it."""
        versions = [server.engine.directory.named(self.name).memo.changed_at for server in self.stage.servers]
        await self.handle.signal("script", changes)
        for server, before in zip(self.stage.servers, versions, strict=True):

            def seen(server: Server = server, before: float = before) -> bool:
                known = server.engine.directory.named(self.name)
                return known is not None and known.memo.changed_at > before

            await until(seen, "the engine reads the new memo")

    async def ready(self, *workers: WorkerDouble, **status: Any) -> None:
        """Members that have reported ready."""
        await self.script(groups=[1], members=[worker.member() for worker in workers])
        for worker in workers:
            await worker.report(**status)

    async def received(self) -> list[dict[str, Any]]:
        """Every batch that its workflow received."""
        return await self.handle.query("received")

    async def route(self, server: Server | None = None, **asked: Any) -> dict[str, Any]:
        """A route call with the endpoint's key."""
        body = {"endpoint": self.name, "api_key": self.key, "cost": 100, "request_idx": 0} | asked
        status, answered = await self.stage.post("/route/", body, server=server)
        assert status == 200, answered
        return answered

    def begin(self, server: Server | None = None, **asked: Any) -> "asyncio.Task[dict[str, Any]]":
        """A route call in progress."""
        return asyncio.ensure_future(self.route(server, **asked))

    async def lined_up(self, count: int) -> None:
        """Wait until this number of requests is held."""
        endpoint = self.stage.server.engine.directory.named(self.name)
        await until(lambda: endpoint.request_queue.held_count == count, f"{count} calls are held")


class Stage:
    """Engines, endpoints and an HTTP client for one test."""

    _ids = itertools.count(1)

    def __init__(self, env: WorkflowEnvironment, http: aiohttp.ClientSession) -> None:
        self.env = env
        self.http = http
        self.servers: list[Server] = []
        self.endpoints: list[EndpointDouble] = []

    @property
    def server(self) -> Server:
        return self.servers[0]

    async def start_engine(self, **changes: Any) -> Server:
        server = await start_server(settings(**changes), self.env.client)
        self.servers.append(server)
        return server

    async def stop_engine(self, server: Server) -> None:
        self.servers.remove(server)
        await server.close()

    async def endpoint(self, *, owner: str = "alice", **config: Any) -> EndpointDouble:
        number = next(self._ids)
        spec = EndpointSpec(
            endpoint_name=f"llm-{number}",
            endpoint_id=number,
            owner=owner,
            created_at=time.time(),
            config=EndpointConfig.model_validate(config),
        )
        await self.env.client.start_workflow(
            "EndpointWorkflow", spec, id=workflow_id(spec.endpoint_name), task_queue=TASK_QUEUE
        )
        made = EndpointDouble(self, spec)
        self.endpoints.append(made)

        async def published() -> bool:
            return bool(await (await made.handle.describe()).memo())

        await until(published, "the workflow has its memo")
        for server in self.servers:
            await until(
                lambda server=server: server.engine.directory.named(made.name),
                "the engine finds the endpoint",
            )
        return made

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        server: Server | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = (server or self.server).url + path
        sent = (
            {"data": io.BytesIO(body)}
            if isinstance(body, bytes)
            else {"json": body}
            if body is not None
            else {}
        )
        async with self.http.request(method, url, headers=headers, **sent, **more) as response:
            kind = response.headers["Content-Type"].split(";")[0]
            assert kind in {"application/json", "text/plain"}
            if kind == "application/json":
                return response.status, await response.json()
            return response.status, await response.text()

    async def post(
        self, path: str, body: Any, *, key: str = "", server: Server | None = None
    ) -> tuple[int, Any]:
        return await self.call("POST", path, body, key=key, server=server)

    async def close(self) -> None:
        for server in list(self.servers):
            await self.stop_engine(server)
        for endpoint in self.endpoints:
            await endpoint.handle.terminate()


@pytest.fixture(scope="session")
def clients_installed() -> None:
    """The packages of other projects are installed before a test waits for their calls."""
    python_of("clients")


@pytest_asyncio.fixture(loop_scope="session")
async def bare_stage(temporal: WorkflowEnvironment) -> AsyncIterator[Stage]:
    """A stage without an engine."""
    async with aiohttp.ClientSession() as http:
        stage = Stage(temporal, http)
        yield stage
        await stage.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(bare_stage: Stage) -> Stage:
    """A stage with one engine."""
    await bare_stage.start_engine()
    return bare_stage
