"""A request that crashes every model, through the OpenAI proxy and through `/route/`. Real HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio
from aiohttp import web

from stoker_wire.security.fingerprint import fingerprint
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until

POISON = {"prompt": "x", "temperature": -7}


class Fragile(ModelWorker):
    """A worker whose model crashes with one request: the connection breaks, and a report follows."""

    broken = False
    probe_seconds = 0.1
    """Until its probe detects the crash."""
    reporting: "asyncio.Task[None] | None" = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["payload"].get("temperature") == -7:
            self.seen.append(await request.json())
            self.broken = True
            assert request.transport is not None
            request.transport.abort()
            self.reporting = asyncio.ensure_future(self._report())
            return web.Response()
        return await super()._handle(request)

    async def _report(self) -> None:
        await asyncio.sleep(self.probe_seconds)
        await self.worker.report(error_msg="CUDA error: device-side assert")


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(stage: Stage) -> AsyncIterator[tuple[EndpointDouble, list[Fragile]]]:
    endpoint = await stage.endpoint()
    models = [Fragile(endpoint.worker(letter * 12, 100 + n)) for n, letter in enumerate("abcde")]
    for model in models:
        await model.start()
    await endpoint.ready(*(model.worker for model in models))
    yield endpoint, models
    for model in models:
        if model.reporting is not None:
            await model.reporting
        await model.server.close()


def seen(models: list[Fragile]) -> int:
    return sum(len(model.seen) for model in models)


async def test_the_proxy_sends_it_to_two_workers_and_then_refuses_it_for_every_client(
    stage: Stage, fleet: tuple[EndpointDouble, list[Fragile]]
) -> None:
    endpoint, models = fleet
    status, problem = await stage.call("POST", path(endpoint, "completions"), POISON, key=endpoint.key)
    assert (status, problem["error"]["code"]) == (422, "request_breaks_workers"), problem
    assert "CUDA error: device-side assert" in problem["error"]["message"]
    assert "change the request" in problem["error"]["message"]
    assert sum(model.broken for model in models) == 2

    # Another client's copy with reordered keys reaches no worker.
    copy = dict(reversed(POISON.items()))
    status, problem = await stage.call("POST", path(endpoint, "completions"), copy, key=endpoint.key)
    assert (status, problem["error"]["code"]) == (422, "request_breaks_workers")
    asked = await stage.post(
        "/route/",
        {
            "endpoint": endpoint.name,
            "api_key": endpoint.key,
            "fingerprint": fingerprint("/v1/completions", b'{"temperature":-7,"prompt":"x"}'),
        },
    )
    assert (asked[0], asked[1]["error"]) == (422, "request_breaks_workers")
    assert sum(model.broken for model in models) == 2

    # Other requests are served.
    for number in range(6):
        status, answer = await stage.call(
            "POST", path(endpoint, "completions"), {"n": number}, key=endpoint.key
        )
        assert (status, answer["got"]) == (200, {"n": number})


async def test_a_copy_that_already_waits_is_refused_once_two_workers_broke_elsewhere(
    stage: Stage, fleet: tuple[EndpointDouble, list[Fragile]]
) -> None:
    endpoint, models = fleet
    await endpoint.script(members=[])
    waits = asyncio.ensure_future(stage.call("POST", path(endpoint, "completions"), POISON, key=endpoint.key))
    await endpoint.lined_up(1)
    known = fingerprint("/v1/completions", b'{"temperature":-7,"prompt":"x"}')
    breaks = [{"f": known, "l": letter * 12, "t": time.time(), "c": "it crashed"} for letter in "yz"]
    await endpoint.script(b=breaks)
    await endpoint.ready(*(model.worker for model in models))
    status, problem = await waits
    assert (status, problem["error"]["code"]) == (422, "request_breaks_workers"), problem
    assert not seen(models)


async def test_two_workers_are_judged_before_a_third_gets_the_request_when_their_reports_are_late(
    stage: Stage, fleet: tuple[EndpointDouble, list[Fragile]]
) -> None:
    endpoint, models = fleet
    for model in models:
        model.probe_seconds = 1.8  # longer than the pause of a request that is routed twice
    status, problem = await stage.call("POST", path(endpoint, "completions"), POISON, key=endpoint.key)
    assert (status, problem["error"]["code"]) == (422, "request_breaks_workers"), problem
    assert sum(model.broken for model in models) == 2


async def test_an_official_client_that_retries_with_its_index_is_refused(
    stage: Stage, fleet: tuple[EndpointDouble, list[Fragile]]
) -> None:
    endpoint, models = fleet
    request_idx, calls = 0, 0
    while True:
        body = {"endpoint": endpoint.name, "api_key": endpoint.key, "cost": 1, "request_idx": request_idx}
        status, answer = await stage.post("/route/", body)
        if status != 200:
            break
        request_idx = answer["request_idx"]
        if "url" not in answer:
            continue
        calls += 1
        assert calls <= 2
        try:
            envelope = {"auth_data": answer, "payload": POISON}
            await stage.http.post(f"{answer['url']}/v1/completions", json=envelope)
        except aiohttp.ClientError:
            continue
    assert (status, answer["error"]) == (422, "request_breaks_workers")
    assert sum(model.broken for model in models) == 2


async def test_simultaneous_copies_break_no_third_worker_once_the_first_break_is_known(
    stage: Stage, fleet: tuple[EndpointDouble, list[Fragile]]
) -> None:
    endpoint, models = fleet

    async def send() -> int:
        return (await stage.call("POST", path(endpoint, "completions"), POISON, key=endpoint.key))[0]

    first = asyncio.ensure_future(send())
    known = stage.server.engine.directory.named(endpoint.name)
    await until(lambda: len(known.broken_requests), "the first break is known")
    rest = await asyncio.gather(*(send() for _ in range(8)))
    assert {await first, *rest} == {422}
    assert sum(model.broken for model in models) == 2
