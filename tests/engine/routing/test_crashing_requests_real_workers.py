"""Crashing requests with real PyWorkers: a model server that crashes, its 502, its probe and its report."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from tests.engine.api.openai.test_openai import path
from tests.engine.conftest import EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until
from tests.engine.routing.test_crashing_requests import POISON
from tests.pyworker.harness import Model


class Mortal(Model):
    """Its process exits during the crashing request."""

    died = False

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> Any:
        if b"temperature" in body:
            self.died = True
            self.server.close()
            for each in list(self.writers):
                each.transport.abort()
            return False
        return await super()._answer("/health" if path == "/health" else "/echo", body, writer)


class Box:
    """A real worker with its model server, in this process."""

    def __init__(
        self, stage: Stage, endpoint: EndpointDouble, letter: str, number: int, folder: Path
    ) -> None:
        self.double = endpoint.worker(letter * 12, number)
        self.model = Mortal()
        self._stage, self._folder = stage, folder

    async def start(self) -> None:
        await self.model.start()
        config = WorkerConfig(
            model_server_url="http://127.0.0.1",
            model_server_port=self.model.port,
            model_healthcheck_url="/health",
            handlers=[
                HandlerConfig(
                    route="/v1/completions",
                    benchmark_config=BenchmarkConfig(dataset=[{"n": 0}], runs=1, do_warmup=False),
                )
            ],
        )
        environment = Environment(
            container_id=self.double.instance_id,
            worker_port=0,
            report_addresses=(self._stage.server.url,),
            master_token=self.double.token,
            launch_id=self.double.launch_id,
            drain_seconds_max=5,
        )
        self._folder.mkdir()
        self.runtime = WorkerRuntime(
            config, environment, Limits(body_bytes_max=config.body_bytes_max), directory=self._folder
        )
        self.task = asyncio.ensure_future(self.runtime.serve("127.0.0.1"))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.model.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def boxes(stage: Stage, tmp_path: Path) -> AsyncIterator[tuple[EndpointDouble, list[Box]]]:
    endpoint = await stage.endpoint()
    made = [Box(stage, endpoint, letter, 200 + n, tmp_path / letter) for n, letter in enumerate("abcd")]
    for box in made:
        await box.start()
    await endpoint.script(groups=[1], members=[box.double.member() for box in made])
    known = stage.server.engine.directory.named(endpoint.name)
    await until(lambda: len(known.candidates) == len(made), "all workers are ready")
    yield endpoint, made
    for box in made:
        await box.stop()


def dead(boxes: list[Box]) -> int:
    return sum(box.model.died for box in boxes)


async def test_a_crashing_request_ends_two_models_and_every_other_request_is_served(
    stage: Stage, boxes: tuple[EndpointDouble, list[Box]]
) -> None:
    endpoint, made = boxes

    async def send(payload: dict[str, Any]) -> tuple[int, Any]:
        return await stage.call("POST", path(endpoint, "completions"), payload, key=endpoint.key)

    others = [asyncio.ensure_future(send({"n": number})) for number in range(20)]
    status, problem = await send(POISON)
    assert (status, problem["error"]["code"]) == (422, "request_breaks_workers"), problem
    assert dead(made) == 2
    assert {(await each)[0] for each in others} <= {200}
    for _ in range(3):
        assert (await send(dict(reversed(POISON.items()))))[0] == 422
    assert dead(made) == 2
    for number in range(10):
        assert await send({"n": number}) == (200, {"n": number})


async def test_a_client_that_retries_as_fast_as_possible_ends_two_models(
    stage: Stage, boxes: tuple[EndpointDouble, list[Box]]
) -> None:
    endpoint, made = boxes
    request_idx = 0
    while True:
        body = {"endpoint": endpoint.name, "api_key": endpoint.key, "cost": 1, "request_idx": request_idx}
        status, route = await stage.post("/route/", body)
        if status != 200:
            break
        request_idx = route["request_idx"]
        if "url" in route:
            envelope = json.dumps({"auth_data": route, "payload": POISON})
            headers = {"Content-Type": "application/json"}
            try:
                async with stage.http.post(
                    f"{route['url']}/v1/completions", data=envelope, headers=headers
                ) as reply:
                    assert reply.status == 502
            except aiohttp.ClientConnectionError:
                continue
    assert (status, route["error"]) == (422, "request_breaks_workers")
    assert dead(made) == 2


async def test_fresh_copies_of_a_client_without_fingerprints_end_two_models(
    stage: Stage, boxes: tuple[EndpointDouble, list[Box]]
) -> None:
    """Official clients send no fingerprint, and a new call of theirs has a new index."""
    endpoint, made = boxes
    known = stage.server.engine.directory.named(endpoint.name)

    async def send(payload: dict[str, Any]) -> tuple[int, Any]:
        route = await endpoint.route(cost=1)
        envelope = json.dumps({"auth_data": route, "payload": payload})
        headers = {"Content-Type": "application/json"}
        async with stage.http.post(f"{route['url']}/v1/completions", data=envelope, headers=headers) as reply:
            return reply.status, await reply.json()

    for left in (len(made) - 1, len(made) - 2):
        assert (await send(POISON))[0] == 502
        await until(lambda left=left: len(known.candidates) == left, f"{left} workers are left")
    await until(lambda: known.broken_requests.refused(time.time()), "the engine knows the content")
    for copy in (POISON, dict(reversed(POISON.items()))):
        status, problem = await send(copy)
        assert (status, problem["error"]) == (422, "request_breaks_workers"), problem
    assert dead(made) == 2
    assert (await send({"n": 1})) == (200, {"n": 1})


async def test_a_call_to_an_unknown_path_leaves_the_worker_free(
    stage: Stage, boxes: tuple[EndpointDouble, list[Box]]
) -> None:
    endpoint, _ = boxes
    known = stage.server.engine.directory.named(endpoint.name)
    route = await endpoint.route(cost=1000)
    async with stage.http.post(
        f"{route['url']}/v1/nothing", json={"auth_data": route, "payload": {}}
    ) as reply:
        assert reply.status == 404
    await until(
        lambda: not any(worker.holds for worker in known.workers.values()), "no worker is busy", seconds=1.0
    )


async def test_an_unused_ticket_occupies_its_worker_for_three_seconds_only(
    stage: Stage, boxes: tuple[EndpointDouble, list[Box]]
) -> None:
    endpoint, _ = boxes
    known = stage.server.engine.directory.named(endpoint.name)
    await endpoint.route(cost=1000)
    assert sum(worker.outstanding.load for worker in known.workers.values()) == 1000
    await until(
        lambda: sum(worker.outstanding.load for worker in known.workers.values()) == 0,
        "the ticket is no work any more",
        seconds=5.0,
    )
    assert sum(worker.outstanding.tickets_open for worker in known.workers.values()) == 1
