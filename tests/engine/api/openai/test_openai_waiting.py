"""Resources that waiting calls of the OpenAI API hold: a queue position, a ticket, and a body."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from engine.request_log import Outcome
from engine.routing.endpoint import Endpoint
from engine.settings import Limits, Timing
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until


def begin(stage: Stage, endpoint: EndpointDouble, body: Any = b"{}") -> "asyncio.Task[tuple[int, Any]]":
    """A plain client's call under way."""
    return asyncio.ensure_future(stage.call("POST", path(endpoint, "completions"), body, key=endpoint.key))


def known(stage: Stage, endpoint: EndpointDouble) -> Endpoint:
    return stage.server.engine.directory.named(endpoint.name)


@contextmanager
def outcomes(stage: Stage) -> Iterator[list[Outcome]]:
    """The outcomes of requests in the request log."""
    told: list[Outcome] = []
    stage.server.engine.dispatcher._on_ended = lambda _, __, outcome: told.append(outcome)
    yield told


def prompt(size: int) -> bytes:
    """A body of so many bytes."""
    return b'{"prompt":"' + b"x" * (size - 13) + b'"}'


# -- places


async def test_clients_that_hang_up_leave_the_line_at_once(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    calls = [begin(stage, endpoint) for _ in range(24)]
    await endpoint.lined_up(24)
    with outcomes(stage) as told:
        for call in calls:
            call.cancel()
        await until(
            lambda: len(known(stage, endpoint).request_queue) == 0, "nobody is in the line", seconds=5
        )
    here = known(stage, endpoint)
    assert (here.waiting, here.request_queue.load, here.counters.requests_expired) == ({}, 0.0, 24)
    assert told == [Outcome.EXPIRED] * 24


async def test_a_client_that_hangs_up_keeps_the_queue_positions_of_others(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    leaving, staying = begin(stage, endpoint), begin(stage, endpoint)
    polling = endpoint.begin()
    await endpoint.lined_up(3)
    leaving.cancel()
    await endpoint.lined_up(2)
    await endpoint.ready(model.worker)
    assert (await staying)[0] == 200
    assert (await polling)["url"] == model.worker.url
    assert len(model.seen) == 1
    await model.server.close()


async def test_a_request_refused_for_want_of_a_worker_leaves_nothing_in_the_queue(
    bare_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.api.openai_queue.WAIT_SECONDS_MAX", 0.0)
    await bare_stage.start_engine(timing=Timing(watch_seconds=0.05, hold_seconds=0.05))
    endpoint = await bare_stage.endpoint()
    with outcomes(bare_stage) as told:
        status, problem = await begin(bare_stage, endpoint)
    assert (status, problem["error"]["code"]) == (503, "no_worker")
    assert len(known(bare_stage, endpoint).request_queue) == 0
    assert told == [Outcome.EXPIRED]


async def test_an_engine_that_stops_cuts_its_waiting_calls_off(bare_stage: Stage) -> None:
    server = await bare_stage.start_engine()
    endpoint = await bare_stage.endpoint()
    call = begin(bare_stage, endpoint)
    await endpoint.lined_up(1)
    with outcomes(bare_stage) as told:
        server.engine.stop_holding()
        status, problem = await call
    assert (status, problem["error"]["code"]) == (503, "no_worker")
    assert "restarting" in problem["error"]["message"]
    assert told == [Outcome.CUT_OFF]


# -- tickets


async def test_a_ticket_that_no_worker_was_shown_is_void_when_its_client_leaves(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    reached = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def never_shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        reached.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_shake_hands, "127.0.0.1", 0)
    worker = endpoint.worker()
    worker.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await endpoint.ready(worker)
    with outcomes(stage) as told:
        call = begin(stage, endpoint)
        await reached.wait()
        here = known(stage, endpoint)
        outstanding = here.workers[worker.launch_id].outstanding
        assert (outstanding.tickets_open, len(here.assigned)) == (1, 1)
        call.cancel()
        await until(lambda: outstanding.tickets_open == 0, "the ticket is withdrawn")
    assert (len(here.assigned), here.load, told) == (0, 0.0, [Outcome.UNKNOWN])
    server.close()
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_of_a_ticket_that_a_worker_was_shown_the_worker_says_the_end(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    left = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    model.answer = hang
    call = begin(stage, endpoint)
    await until(lambda: model.seen, "the worker is called")
    call.cancel()
    await left.wait()
    assert known(stage, endpoint).workers[model.worker.launch_id].outstanding.tickets_open == 1
    request_idx = model.seen[0]["auth_data"]["request_idx"]
    assert (await model.worker.finish(request_idx, success=False))["known"] == 1
    await model.server.close()


# -- bodies


async def test_the_bodies_of_waiting_calls_are_bounded_in_sum(bare_stage: Stage) -> None:
    await bare_stage.start_engine(limits=Limits(openai_held_bytes_max=1000))
    endpoint = await bare_stage.endpoint()
    first = begin(bare_stage, endpoint, prompt(600))
    await endpoint.lined_up(1)
    url = bare_stage.server.url + path(endpoint, "completions")
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with bare_stage.http.post(url, data=prompt(600), headers=headers) as refused:
        problem = await refused.json()
        assert (refused.status, problem["error"]["code"], refused.headers["Retry-After"]) == (
            503,
            "bodies_full",
            "5",
        )
        assert "openai_held_bytes_max" in problem["error"]["message"]
    first.cancel()
    await endpoint.lined_up(0)
    second = begin(bare_stage, endpoint, prompt(1000))
    await endpoint.lined_up(1)
    second.cancel()
    status, problem = await begin(bare_stage, endpoint, prompt(1001))
    assert (status, problem["error"]["code"]) == (413, "body_too_large")


async def test_an_account_whose_calls_wait_leaves_room_for_the_others(bare_stage: Stage) -> None:
    await bare_stage.start_engine(limits=Limits(openai_held_bytes_max=1000))
    crowded, other = await bare_stage.endpoint(), await bare_stage.endpoint()
    bobs = await bare_stage.endpoint(owner="bob")
    calls = [begin(bare_stage, crowded, prompt(300))]
    await crowded.lined_up(1)
    calls.append(begin(bare_stage, other, prompt(200)))
    await other.lined_up(1)
    for endpoint in (crowded, other):
        url = bare_stage.server.url + path(endpoint, "completions")
        headers = {"Authorization": f"Bearer {endpoint.key}"}
        async with bare_stage.http.post(url, data=prompt(20), headers=headers) as refused:
            problem = await refused.json()
            said = (refused.status, problem["error"]["code"], refused.headers["Retry-After"])
            assert said == (429, "account_bodies_full", "5")
            assert "500 bytes" in problem["error"]["message"]
    calls.append(begin(bare_stage, bobs, prompt(250)))
    await bobs.lined_up(1)
    assert (await begin(bare_stage, bobs, prompt(20)))[0] == 429, "the more there are, the smaller each share"
    for call in calls:
        call.cancel()
    await asyncio.gather(*(endpoint.lined_up(0) for endpoint in (crowded, other, bobs)))
    last = begin(bare_stage, crowded, prompt(500))
    await crowded.lined_up(1)
    last.cancel()


async def test_a_body_is_let_go_when_the_answer_has_begun(bare_stage: Stage) -> None:
    await bare_stage.start_engine(limits=Limits(openai_held_bytes_max=1000))
    endpoint = await bare_stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        return response

    model.answer = stream
    url = bare_stage.server.url + path(endpoint, "completions")
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with bare_stage.http.post(url, data=prompt(1000), headers=headers) as begun:
        assert await begun.content.readany() == b"first"
        go_on.set()
        assert await begin(bare_stage, endpoint, prompt(1000)) == (200, "first")
    await model.server.close()


async def test_a_large_body_reaches_the_worker_whole(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    for letters in (30_000, 33_000, 300_000):
        payload = {"prompt": "é" * letters}
        sent = json.dumps(payload, ensure_ascii=False).encode()
        status, answer = await begin(stage, endpoint, sent)
        assert (status, answer["got"]) == (200, payload)
    assert (await begin(stage, endpoint, b" \n"))[1]["got"] == {}
    await model.server.close()


@pytest.mark.parametrize("key", ["", "Authorization: Bearer sk-wrong\r\n"])
async def test_a_body_without_a_valid_key_is_refused_before_it_comes(stage: Stage, key: str) -> None:
    endpoint = await stage.endpoint()
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.server.port)
    head = f"POST {path(endpoint, 'completions')} HTTP/1.1\r\nHost: x\r\n{key}Content-Length: 1000000\r\n\r\n"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 401")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "auth_error"
    writer.close()
