"""`Endpoint.map` and `Endpoint.submit`: bounded concurrency, and requests in the background."""

import asyncio
from contextlib import aclosing

import pytest

import stoker
from stoker import Request, RequestStatus
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY, json_reply, problem


def numbered(count: int) -> list[Request]:
    return [Request(route="/x", payload={"n": number}) for number in range(count)]


async def test_answers_come_in_order_of_the_requests(peers, endpoint):
    later = asyncio.Event()

    async def first_last(request, body):
        if body["payload"]["n"] == 0:
            await later.wait()
        elif body["payload"]["n"] == 3:
            later.set()
        return await json_reply(body["payload"]["n"])(request, body)

    peers.worker_reply = first_last
    got = [answer.json() async for answer in endpoint.map(numbered(10), concurrency=4)]
    assert got == list(range(10))


async def test_unordered_answers_come_as_they_complete(peers, endpoint):
    later = asyncio.Event()

    async def first_last(request, body):
        if body["payload"]["n"] == 0:
            await later.wait()
        return await json_reply(body["payload"]["n"])(request, body)

    peers.worker_reply = first_last
    got = []
    async for answer in endpoint.map(numbered(6), concurrency=2, ordered=False):
        got.append(answer.json())
        if len(got) == 5:
            later.set()
    assert got[-1] == 0
    assert sorted(got) == list(range(6))


async def test_exactly_the_allowed_number_runs_at_once(peers, endpoint):
    full = asyncio.Event()

    async def wait_for_company(request, body):
        if peers.working_now == 3:
            full.set()
        await full.wait()
        return await json_reply(1)(request, body)

    peers.worker_reply = wait_for_company
    answers = [answer async for answer in endpoint.map(numbered(12), concurrency=3)]
    assert len(answers) == 12
    assert peers.working_max == 3


async def test_requests_are_taken_from_the_source_when_needed(endpoint):
    taken = []

    async def endless():
        number = 0
        while True:
            taken.append(number)
            yield Request(route="/x", payload={"n": number})
            number += 1

    async with aclosing(endpoint.map(endless(), concurrency=2)) as answers:
        async for answer in answers:
            if answer.json() == {"echo": {"n": 20}}:
                break
    assert len(taken) < 40


async def test_the_first_error_ends_a_map_and_cancels_the_rest(peers, endpoint):
    async def fail_one(request, body):
        if body["payload"]["n"] == 1:
            return await problem(422, "bad", "number one is bad")(request, body)
        return await asyncio.Event().wait()

    peers.worker_reply = fail_one
    with pytest.raises(stoker.ModelError, match="number one"):
        async for _ in endpoint.map(numbered(3), concurrency=3, ordered=False):
            pass
    await asyncio.wait_for(peers.client_disconnected.wait(), 10)


async def test_errors_can_be_yielded_instead_of_answers(peers, endpoint):
    async def fail_odd(request, body):
        number = body["payload"]["n"]
        say = problem(422, "bad", "odd") if number % 2 else json_reply(number)
        return await say(request, body)

    peers.worker_reply = fail_odd
    got = [item async for item in endpoint.map(numbered(4), return_errors=True)]
    assert [type(item).__name__ for item in got] == ["Answer", "ModelError", "Answer", "ModelError"]


async def test_an_error_of_the_source_is_raised(endpoint):
    def broken():
        yield Request(route="/x", payload={})
        raise LookupError("no more rows")

    with pytest.raises(LookupError, match="no more rows"):
        [answer async for answer in endpoint.map(broken())]


async def test_a_map_of_no_requests_yields_nothing(endpoint):
    assert [answer async for answer in endpoint.map([])] == []
    with pytest.raises(stoker.Invalid, match="concurrency"):
        [answer async for answer in endpoint.map([], concurrency=0)]


async def test_a_thousand_requests_at_once_are_answered(peers, endpoint):
    ask = endpoint.request
    answers = await asyncio.gather(*(ask("/x", {"n": number}, timeout=100) for number in range(1000)))
    assert [answer.json()["echo"]["n"] for answer in answers] == list(range(1000))


async def test_requests_queue_for_connections(peers):
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, connections_max=3) as client:
        endpoint = await client.get_endpoint("llm")
        await asyncio.gather(*(endpoint.request("/x", {}) for _ in range(30)))
    assert peers.working_max <= 3


async def test_a_submission_shows_the_requests_state(peers, endpoint):
    asked, go = asyncio.Event(), asyncio.Event()
    working, finish = asyncio.Event(), asyncio.Event()

    async def route(request, body):
        asked.set()
        await go.wait()
        return await peers.route_to()(request, body)

    async def work(request, body):
        working.set()
        await finish.wait()
        return await json_reply("done")(request, body)

    waited = asyncio.Event()
    peers.route_replies += [peers.wait("booting", "a worker boots"), route]
    peers.worker_reply = work
    submission = endpoint.submit("/x", {}, on_wait=lambda _: waited.set())
    assert submission.status is RequestStatus.NEW
    await asyncio.wait_for(waited.wait(), 10)
    await asyncio.wait_for(asked.wait(), 10)
    assert submission.status is RequestStatus.POLLING
    assert submission.wait is not None
    assert submission.wait.reason == "booting"
    assert submission.request_idx == 1
    go.set()
    await asyncio.wait_for(working.wait(), 10)
    assert submission.status is RequestStatus.IN_PROGRESS
    assert not submission.done()
    finish.set()
    assert (await submission).json() == "done"
    assert submission.status is RequestStatus.COMPLETE
    assert submission.done()


async def test_a_submission_can_be_cancelled(peers, endpoint):
    started = asyncio.Event()

    async def hang(request, body):
        started.set()
        await asyncio.Event().wait()

    peers.worker_reply = hang
    submission = endpoint.submit("/x", {})
    await asyncio.wait_for(started.wait(), 10)
    assert submission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submission
    assert submission.status is RequestStatus.CANCELLED
    await asyncio.wait_for(peers.client_disconnected.wait(), 10)


async def test_a_failed_submission_raises_its_error(peers, endpoint):
    peers.worker_reply = problem(422, "bad", "bad payload")
    submission = endpoint.submit("/x", {})
    with pytest.raises(stoker.ModelError):
        await submission
    assert submission.status is RequestStatus.ERRORED


async def test_closing_the_client_cancels_background_requests(peers):
    started = asyncio.Event()

    async def hang(request, body):
        started.set()
        await asyncio.Event().wait()

    peers.worker_reply = hang
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url) as client:
        submission = (await client.get_endpoint("llm")).submit("/x", {})
        await asyncio.wait_for(started.wait(), 10)
    assert submission.status is RequestStatus.CANCELLED


async def test_a_closed_client_is_an_error(peers):
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url) as client:
        endpoint = await client.get_endpoint("llm")
    with pytest.raises(RuntimeError, match="closed"):
        await endpoint.request("/x", {})
