"""The OpenAI door: plain clients, real workers over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from stoker_wire.security.ticket import verify_ticket
from stoker_wire.security.token import ticket_key
from tests.engine.conftest import BOB, EndpointDouble, Stage, WorkerDouble
from tests.engine.fake_endpoint_workflow import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ModelWorker:
    """A worker's HTTP side; the test chooses its answer."""

    def __init__(self, worker: WorkerDouble) -> None:
        self.worker = worker
        self.seen: list[dict[str, Any]] = []
        self.answer: Handler = self._echo
        app = web.Application()
        app.router.add_post("/v1/{path:.+}", self._handle)
        self.server = TestServer(app)

    async def start(self) -> None:
        await self.server.start_server()
        self.worker.url = f"http://127.0.0.1:{self.server.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        envelope = await request.json()
        self.seen.append(envelope)
        auth = envelope["auth_data"]
        verify_ticket(auth["ticket"], ticket_key(self.worker.token), worker=self.worker.launch_id, now=0)
        return await self.answer(request)

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"path": request.path, "got": self.seen[-1]["payload"]})


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(stage: Stage) -> EndpointDouble:
    return await stage.endpoint()


@pytest_asyncio.fixture(loop_scope="session")
async def model(endpoint: EndpointDouble) -> AsyncIterator[ModelWorker]:
    made = ModelWorker(endpoint.worker())
    await made.start()
    await endpoint.ready(made.worker)
    yield made
    await made.server.close()


def path(endpoint: EndpointDouble, rest: str) -> str:
    return f"/openai/{endpoint.name}/v1/{rest}"


async def test_a_plain_client_is_routed_with_a_ticket_and_gets_the_answer(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    payload = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    status, answer = await stage.call("POST", path(endpoint, "chat/completions"), payload, key=endpoint.key)
    assert (status, answer["got"], answer["path"]) == (200, payload, "/v1/chat/completions")
    assert model.seen[0]["auth_data"]["endpoint"] == endpoint.name
    assert model.seen[0]["session_id"] is None


async def test_a_stream_is_passed_on_as_it_comes(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"n": 1}\n\n')
        await go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    model.answer = stream
    url = stage.server.url + path(endpoint, "completions")
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with stage.http.post(url, json={"stream": True}, headers=headers) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.readuntil(b"\n\n") == b'data: {"n": 1}\n\n'
        go_on.set()
        assert await response.content.read() == b"data: [DONE]\n\n"


async def test_a_client_that_leaves_cancels_the_worker(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    cancelled = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    model.answer = hang
    call = asyncio.ensure_future(
        stage.call("POST", path(endpoint, "completions"), {"prompt": "x"}, key=endpoint.key)
    )
    await until(lambda: model.seen, "the worker is called")
    call.cancel()
    await until(cancelled.is_set, "the worker's call is cancelled")


async def test_a_client_waits_for_a_worker_without_polling(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.script(groups=[1], members=[model.worker.member()])
    call = asyncio.ensure_future(stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key))
    await endpoint.lined_up(1)
    await model.worker.report()
    assert (await call)[0] == 200
    await model.server.close()


async def test_a_worker_that_is_gone_is_replaced_and_suspected(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker("bbbbbbbbbbbb", 102))
    await model.start()
    gone = endpoint.worker()
    gone.url = "http://127.0.0.1:9"  # no server listens on the discard port
    await endpoint.ready(gone, model.worker)
    await model.worker.report(cur_load=500.0)  # the other one looks better
    status, _ = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
    assert status == 200
    known = stage.server.engine.directory.named(endpoint.name)
    assert known.workers[gone.launch_id].suspicion.since is not None
    await model.server.close()


async def test_what_the_model_says_of_a_bad_request_is_passed_on(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "max_tokens is too large"}}, status=400)

    model.answer = refuse
    status, answer = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
    assert (status, answer["error"]["message"]) == (400, "max_tokens is too large")


async def test_the_endpoint_is_the_model(stage: Stage, endpoint: EndpointDouble) -> None:
    status, models = await stage.call("GET", path(endpoint, "models"), key=endpoint.key)
    assert (status, [model["id"] for model in models["data"]]) == (200, [endpoint.name])


async def test_the_door_has_the_same_lock(stage: Stage, endpoint: EndpointDouble) -> None:
    other = await stage.endpoint(owner="bob")
    for key, status in [("", 401), ("wrong", 401), (BOB, 404), (other.key, 401)]:
        answered, problem = await stage.call("POST", path(endpoint, "completions"), {}, key=key)
        assert answered == status, (key, problem)
    assert (await stage.call("POST", path(endpoint, "files"), {}, key=endpoint.key))[0] == 404
    assert (await stage.call("POST", path(endpoint, "completions"), b"{", key=endpoint.key))[0] == 400


async def test_a_cost_can_be_given_in_a_header(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    url = stage.server.url + path(endpoint, "completions")
    headers = {"Authorization": f"Bearer {endpoint.key}", "X-Stoker-Cost": "256"}
    async with stage.http.post(url, json={}, headers=headers) as response:
        assert response.status == 200
    assert model.seen[0]["auth_data"]["cost"] == 256
    headers["X-Stoker-Cost"] = "nan"
    async with stage.http.post(url, json={}, headers=headers) as response:
        assert (response.status, json.loads(await response.read())["error"]["code"]) == (400, "invalid_args")


async def test_a_worker_that_breaks_off_its_answer_breaks_the_clients(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        assert request.transport is not None
        request.transport.abort()
        return response

    model.answer = break_off
    url = stage.server.url + path(endpoint, "completions")
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    try:
        async with stage.http.post(url, json={}, headers=headers) as response:
            await response.read()
    except aiohttp.ClientError:
        return
    raise AssertionError("the client was told that the answer is whole")


async def test_a_worker_cannot_send_the_engine_elsewhere(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    asked: list[str] = []

    async def inside(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"AccessKeyId": "canary"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", inside)
    metadata = TestServer(app)
    await metadata.start_server()

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{metadata.port}/latest/meta-data/")

    model.answer = redirect
    try:
        status, answer = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
        assert (status, answer["error"]["code"]) == (502, "worker_redirects")
        assert asked == []
    finally:
        await metadata.close()


async def test_a_worker_is_sent_no_key_and_no_other_workers_cookie(
    stage: Stage, endpoint: EndpointDouble, model: ModelWorker
) -> None:
    heads: list[str] = []

    async def remember(request: web.Request) -> web.StreamResponse:
        heads.append(repr(request.headers))
        response = web.json_response({})
        response.set_cookie("tenant", "of-another")
        return response

    model.answer = remember
    # By a name, because cookies of plain addresses are not kept anyway.
    model.worker.url = f"http://localhost:{model.server.port}"
    await endpoint.script(members=[model.worker.member(a=f"localhost:{model.server.port}")])
    await model.worker.report()
    for _ in range(2):
        assert (await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key))[0] == 200
    assert len(heads) == 2
    assert endpoint.key not in "".join(heads)
    assert "Cookie" not in "".join(heads)
