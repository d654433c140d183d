"""stoker's own client with workers of both kinds: with `test_clients.py`, all four pairings of client and worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import stoker
from tests.vast.conftest import WORKERS
from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment

Ready = Callable[[str], dict[str, Any]]


@pytest.fixture(params=WORKERS)
async def endpoint(
    request: pytest.FixtureRequest, deployment: Deployment, ready: Ready
) -> AsyncIterator[stoker.Endpoint]:
    ready(request.param)
    async with stoker.Serverless(deployment.key, url=deployment.engine) as client:
        yield await client.get_endpoint(request.param)


@call("worker-json")
async def test_json_in_and_out(endpoint: stoker.Endpoint) -> None:
    answer = await endpoint.request("/json", {"tokens": 3}, cost=3)
    assert answer.json()["echo"] == {"tokens": 3}
    assert answer.worker_id == int(answer.json()["by"])


@call("worker-text")
async def test_text_out(endpoint: stoker.Endpoint) -> None:
    assert (await endpoint.request("/text", {})).response == "plain words"


@call("worker-bytes")
async def test_bytes_out(endpoint: stoker.Endpoint) -> None:
    assert (await endpoint.request("/binary", {})).content == bytes(range(256)) * 4


@call("worker-sse")
async def test_server_sent_events(endpoint: stoker.Endpoint) -> None:
    async with endpoint.stream("/events", {"count": 4}) as stream:
        assert [event.json()["n"] async for event in stream] == [0, 1, 2, 3]


@call("worker-jsonl")
async def test_json_lines(endpoint: stoker.Endpoint) -> None:
    async with endpoint.stream("/lines", {"count": 4}) as stream:
        assert [event.json()["n"] async for event in stream] == [0, 1, 2, 3]


@call("worker-json")
async def test_thirty_at_once(endpoint: stoker.Endpoint) -> None:
    asked = [endpoint.request("/json", {"tokens": 1, "number": n}, cost=1) for n in range(30)]
    answers = await asyncio.gather(*asked)
    assert [answer.json()["echo"]["number"] for answer in answers] == list(range(30))


@call("session-create", "session-request", "session-end")
async def test_a_session(endpoint: stoker.Endpoint) -> None:
    async with endpoint.session(cost=1, lifetime=20) as session:
        answers = [await session.request("/json", {"tokens": 1, "number": n}, cost=1) for n in range(3)]
    assert [answer.json()["echo"]["number"] for answer in answers] == [0, 1, 2]
    assert {answer.worker_url for answer in answers} == {answers[0].worker_url}
    assert not session.is_open


@call("worker-4xx")
async def test_a_400_of_the_model_is_the_callers_to_see(endpoint: stoker.Endpoint) -> None:
    with pytest.raises(stoker.StokerError) as seen:
        await endpoint.request("/json", {"tokens": 1, "fail_with": "400 seen by stoker"}, cost=1)
    assert "400" in str(seen.value)


@call("worker-retry")
async def test_a_503_of_the_model_is_retried(endpoint: stoker.Endpoint) -> None:
    answer = await endpoint.request("/json", {"tokens": 1, "fail_with": "503 once for stoker"}, cost=1)
    assert answer.status == 200
    assert answer.attempts == 2


@call("endpoint-workers")
async def test_workers_are_records(endpoint: stoker.Endpoint) -> None:
    (worker,) = await endpoint.workers()
    assert worker.status == "idle"
