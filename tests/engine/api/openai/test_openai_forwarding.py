"""What goes through the OpenAI API from client to model and back, and what happens when a worker does not answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from engine.routing.endpoint import Endpoint
from tests.engine.api.model_server import MODEL, ModelServer, pyworker
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import ALICE, EndpointDouble, Stage

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(stage: Stage) -> EndpointDouble:
    return await stage.endpoint()


@pytest_asyncio.fixture(loop_scope="session")
async def model(stage: Stage, endpoint: EndpointDouble, tmp_path: Path) -> AsyncIterator[ModelServer]:
    model = ModelServer()
    async with pyworker(stage, endpoint, model, tmp_path / "worker"):
        yield model


def begin(
    stage: Stage, endpoint: EndpointDouble, payload: Any = CHAT, query: str = "", **headers: str
) -> Any:
    """A chat call as the context manager of its response."""
    fields = {"Authorization": f"Bearer {endpoint.key}", **headers}
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    url = stage.server.url + path(endpoint, "chat/completions") + query
    return stage.http.post(url, data=body, headers={"Content-Type": "application/json"} | fields)


# -- header fields, query and bytes


async def test_everything_but_connection_cookies_and_keys_goes_through(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        fields = {"Retry-After": "3", "x-request-id": "r-1", "X-Accel-Buffering": "no", "Set-Cookie": "a=b"}
        return web.json_response({}, headers=fields | {"Access-Control-Allow-Origin": "*"})

    model.answer = answer
    sent = {
        "X-Request-Id": "c-1",
        "traceparent": "00-1",
        "OpenAI-Organization": "o",
        "User-Agent": "mine/1",
        "Cookie": "session=1",
        "x-api-key": endpoint.key,
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
    }
    query = f"?api-version=2024-02-01&api_key={endpoint.key}"
    async with begin(stage, endpoint, CHAT, query, **sent) as response:
        assert response.status == 200
        passed = {name: response.headers.get(name) for name in ("Retry-After", "x-request-id", "Set-Cookie")}
        assert passed == {"Retry-After": "3", "x-request-id": "r-1", "Set-Cookie": None}
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Access-Control-Allow-Origin" not in response.headers
    seen = model.requests[-1]
    kept = ("X-Request-Id", "traceparent", "OpenAI-Organization", "User-Agent")
    assert {name: seen.headers.get(name) for name in kept} == {name: sent[name] for name in kept}
    assert not {"Authorization", "Cookie", "x-api-key", "X-Hop", "X-Stoker-Auth"} & set(seen.headers)
    assert seen.query_string == "api-version=2024-02-01"
    assert endpoint.key not in repr(seen.headers)


async def test_a_body_that_only_python_reads_is_passed_on(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    body = b'{"model":"%s","messages":[{"content":"half \\ud800"}],"top_p":NaN}' % MODEL.encode()
    async with begin(stage, endpoint, body) as response:
        assert response.status == 200, await response.text()
    assert json.loads(model.bodies[-1])["messages"] == [{"content": "half \ud800"}]


async def test_the_other_dialects_reach_the_servers_that_speak_them(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    for rest in ("v1/messages", "api/chat"):
        url = f"{stage.server.url}/openai/{endpoint.name}/{rest}"
        headers = {"x-api-key": endpoint.key}
        async with stage.http.post(url, json={"model": MODEL}, headers=headers) as response:
            assert (await response.json())["path"] == f"/{rest}"


@pytest.mark.parametrize(
    "rest",
    [
        "session/create",
        "pyworker/status",
        "healthz",
        "v1/none",
        "v1/%2e%2e/session/create",
    ],
)
async def test_the_workers_own_paths_and_unknown_ones_are_not_served(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer, rest: str
) -> None:
    url = f"/openai/{endpoint.name}/{rest}"
    status, problem = await stage.call("POST", url, {}, key=endpoint.key)
    assert (status, problem["error"]["code"]) == (404, "not_found")
    assert "/v1/chat/completions" in problem["error"]["message"]


# -- workload


async def test_a_request_is_booked_with_the_workload_that_the_worker_computes(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    known = stage.server.engine.directory.named(endpoint.name)
    for tokens, load in ((4000, 4000), (7, 7), (None, 100)):
        payload = CHAT if tokens is None else CHAT | {"max_tokens": tokens}
        assert workload_of(known, payload) == load
        async with begin(stage, endpoint, payload) as response:
            assert response.status == 200, await response.text()


def workload_of(known: Endpoint, payload: dict[str, object]) -> float:
    """The workload that the engine expects of a chat."""
    served, chat = known.served, "/v1/chat/completions"
    return served.workload(served.find("POST", chat), chat, payload, 0)


async def test_a_workload_of_the_users_own_code_is_taken_from_the_refusal_and_learned(
    stage: Stage, endpoint: EndpointDouble, tmp_path: Path
) -> None:
    model = ModelServer()
    chat = {"workload_calculator": lambda payload: payload.get("max_tokens", 1) * 3.0}
    async with pyworker(stage, endpoint, model, tmp_path / "worker", chat=chat) as life:
        async with begin(stage, endpoint, CHAT | {"max_tokens": 500}) as response:
            assert response.status == 200, await response.text()
            assert "X-Stoker-Workload" not in response.headers
        assert life.counts.totals().rejected == 1500, "refused once"
        known = stage.server.engine.directory.named(endpoint.name)
        assert workload_of(known, {"max_tokens": 10}) == 30
        async with begin(stage, endpoint, CHAT | {"max_tokens": 900}) as response:
            assert response.status == 200
        assert life.counts.totals().rejected == 1500, "not again"


# -- workers and models that do not answer


async def test_what_the_model_answers_is_not_run_again(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer
) -> None:
    for status in (429, 500, 502, 503):

        async def fail(request: web.Request, status: int = status) -> web.StreamResponse:
            return web.json_response(
                {"error": {"message": "no"}}, status=status, headers={"Retry-After": "9"}
            )

        model.answer = fail
        before = len(model.requests)
        async with begin(stage, endpoint) as response:
            answered = (response.status, response.headers["Retry-After"], (await response.json())["error"])
            assert answered == (status, "9", {"message": "no"})
        assert len(model.requests) == before + 1, status


async def test_a_model_that_takes_no_requests_now_is_replaced_by_another(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer, tmp_path: Path
) -> None:
    other = ModelServer()

    async def unavailable(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=503)

    async with pyworker(stage, endpoint, other, tmp_path / "other", launch_id="b" * 12, instance_id=102):
        model.answer = unavailable
        for _ in range(4):
            async with begin(stage, endpoint) as response:
                assert response.status == 200
        known = stage.server.engine.directory.named(endpoint.name)
        assert [worker.suspicion.since for worker in known.workers.values()] == [None, None]


async def test_a_silent_worker_is_given_up_once_and_not_marked_as_failed(stage: Stage) -> None:
    endpoint = await stage.endpoint(silence_seconds_max=0.3)
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    released = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    model.answer = hang
    status, problem = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
    released.set()
    assert (status, problem["error"]["code"], problem["error"]["type"]) == (
        504,
        "worker_silent",
        "timeout_error",
    )
    assert "silence_seconds_max" in problem["error"]["message"]
    assert len(model.seen) == 1
    known = stage.server.engine.directory.named(endpoint.name)
    assert known.workers[model.worker.launch_id].suspicion.since is None
    await model.server.close()


async def test_retries_are_bounded_per_endpoint(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    gone = [endpoint.worker(letter * 12, 101 + number) for number, letter in enumerate("abcdefgh")]
    for port, worker in enumerate(gone, start=1):
        worker.url = f"http://127.0.0.1:{port}"
    await endpoint.ready(*gone)
    status, problem = await stage.call("POST", path(endpoint, "completions"), {}, key=endpoint.key)
    assert (status, problem["error"]["code"]) == (502, "workers_failed")
    assert "4 workers failed" in problem["error"]["message"]


async def test_the_models_of_a_key_are_listed_without_the_name_of_an_endpoint(stage: Stage) -> None:
    first, second = await stage.endpoint(), await stage.endpoint()
    other = await stage.endpoint(owner="bob")

    async def listed(key: str) -> set[str]:
        status, answered = await stage.call("GET", "/v1/models", key=key)
        assert status == 200
        return {model["id"] for model in answered["data"]}

    assert await listed(first.key) == {first.name}
    assert {first.name, second.name} <= await listed(ALICE)
    assert other.name not in await listed(ALICE)
    status, answered = await stage.call("GET", "/v1/models", key="sk-wrong")
    assert (status, answered["error"]["code"]) == (401, "auth_error")


async def test_a_call_without_the_name_of_an_endpoint_says_the_base_address(stage: Stage) -> None:
    status, answered = await stage.post("/v1/chat/completions", {}, key=ALICE)
    assert (status, answered["error"]["code"]) == (404, "not_found")
    assert "/openai/<name of the endpoint>/v1" in answered["error"]["message"]
