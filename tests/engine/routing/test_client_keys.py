"""Named keys: access, the limits of load and dollars, several engines, restarts, revocation."""

import asyncio
import time
from typing import Any

import pytest

from engine.routing.client_keys import DAY_SECONDS, ClientKeyAccount
from engine.settings import Limits
from stoker_wire.errors.problem import Problem
from stoker_wire.messages import MemoKey
from stoker_wire.security.client_key import Priority
from stoker_wire.security.token import client_key_digest, mint_client_key
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until

NOON = 20_000 * DAY_SECONDS + 43_200.0


def account(*, now: float = NOON, share: float = 1.0, **fields: Any) -> ClientKeyAccount:
    return ClientKeyAccount(MemoKey(n="app", h="0" * 64, **fields), share, now)


def key_of(endpoint: EndpointDouble, number: int = 1) -> str:
    return mint_client_key(endpoint.id, bytes([number]) * 20)


def entry(text: str, name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"n": name, "h": client_key_digest(text)} | fields


async def ask(
    stage: Stage, endpoint: EndpointDouble, key: str, **asked: Any
) -> tuple[int, Any, dict[str, str]]:
    body = {"endpoint": endpoint.name, "cost": 100} | asked
    url = stage.server.url + "/route/"
    async with stage.http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        return response.status, await response.json(), dict(response.headers)


# -- one key, without HTTP


def test_a_used_up_day_is_refused_until_midnight_utc():
    key = account(b=1.0)
    key.admit(1.0, NOON)
    key.spend(1.0, NOON)
    with pytest.raises(Problem, match="00:00 UTC") as caught:
        key.admit(1.0, NOON)
    assert (caught.value.status, caught.value.code) == (429, "key_dollars_per_day")
    assert caught.value.headers == {"Retry-After": "43200", "X-Should-Retry": "false"}
    key.admit(1.0, NOON + 43_200)


def test_a_restarted_engine_knows_from_the_memo_what_was_spent():
    with pytest.raises(Problem):
        account(b=1.0, s=1.0, d=20_000).admit(1.0, NOON)
    account(b=1.0, s=1.0, d=19_999).admit(1.0, NOON)


def test_what_others_spent_counts_and_nothing_counts_twice():
    key = account(b=1.0)
    key.spend(0.3, NOON)
    assert key.take_use().dollars == pytest.approx(0.3)
    # the memo has these 0.3 and 0.4 of another engine
    key.apply(MemoKey(n="app", h="0" * 64, b=1.0, s=0.7, d=20_000), 1.0, NOON)
    assert key.dollars_today(NOON) == pytest.approx(0.7)
    key.spend(0.2, NOON)
    assert key.dollars_today(NOON) == pytest.approx(0.9)


def test_a_clock_that_goes_back_a_day_gives_no_second_budget():
    key = account(b=1.0, now=NOON)
    key.spend(1.0, NOON)
    with pytest.raises(Problem):
        key.admit(1.0, NOON - DAY_SECONDS)


def test_a_memo_of_tomorrow_counts_for_an_engine_whose_clock_is_behind():
    key = account(b=1.0, s=1.0, d=20_001)
    with pytest.raises(Problem):
        key.admit(1.0, NOON)


def test_engines_share_the_rate():
    half = account(r=10.0, share=0.5)
    half.admit(50.0, NOON)
    with pytest.raises(Problem, match="10 load/s") as caught:
        half.admit(10.0, NOON)
    assert caught.value.headers == {"Retry-After": "2"}


# -- through the engine


async def test_a_named_key_routes_until_its_rate_is_used_up(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key = key_of(endpoint)
    await endpoint.ready(endpoint.worker())
    await endpoint.script(keys=[entry(key, r=30.0)])
    # ten seconds of 30 load/s at once
    answers = [await ask(stage, endpoint, key) for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    _, problem, headers = answers[-1]
    assert problem["error"] == "key_load_per_second"
    assert "30 load/s" in problem["msg"]
    assert 1 <= int(headers["Retry-After"]) <= 4
    assert (await ask(stage, endpoint, endpoint.key))[0] == 200, "the endpoint's own key has no limit"
    metrics = await stage.call("GET", "/metrics", key="alice-key-0123456789")
    assert 'outcome="limited"} 1' in metrics[1]


async def test_a_poll_is_not_counted_and_a_new_ticket_is(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key = key_of(endpoint)
    await endpoint.script(groups=[1], keys=[entry(key, r=30.0)])
    call = asyncio.ensure_future(ask(stage, endpoint, key, cost=300))
    await endpoint.lined_up(1)
    known = stage.server.engine.directory.named(endpoint.name)
    index = next(iter(known.waiting))
    poll = asyncio.ensure_future(ask(stage, endpoint, key, cost=0, request_idx=index))
    status, waiting, _ = await call
    assert (status, waiting["request_idx"]) == (200, index), "the poll took over"
    await endpoint.ready(endpoint.worker())
    status, route, _ = await poll
    assert (status, route["cost"]) == (200, 300)
    # asking again for the same request would be a second ticket of 300 load, although it says cost=0
    status, problem, _ = await ask(stage, endpoint, key, cost=0, request_idx=index)
    assert (status, problem["error"]) == (429, "key_load_per_second")


async def test_a_request_that_never_got_a_worker_is_given_back(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key = key_of(endpoint)
    await endpoint.script(groups=[1], keys=[entry(key, r=30.0)])
    call = asyncio.ensure_future(ask(stage, endpoint, key, cost=300, replay_timeout=0))
    await endpoint.lined_up(1)
    call.cancel()
    known = stage.server.engine.directory.named(endpoint.name)
    await until(lambda: not known.waiting, "the request expires")
    await endpoint.ready(endpoint.worker())
    assert (await ask(stage, endpoint, key, cost=300))[0] == 200


async def test_dollars_are_counted_reported_and_end_the_day(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key = key_of(endpoint)
    worker = endpoint.worker()
    # 36 $/h at 100 load/s: 100 load take a second, which costs a cent
    await endpoint.script(groups=[1], members=[worker.member(c=36.0)], keys=[entry(key, b=0.015)])
    await worker.report()
    statuses = [(await ask(stage, endpoint, key))[0] for _ in range(3)]
    assert statuses == [200, 200, 429], "the request that crosses the limit is the last one"
    account = stage.server.engine.directory.named(endpoint.name).client_keys.named("app")
    assert account.dollars_today(time.time()) == pytest.approx(0.02)

    async def reported() -> float:
        batches = await endpoint.received()
        return sum(use["dollars"] for batch in batches for use in batch["keys"])

    await until(lambda: _is(reported(), 0.02), "the workflow hears of both")
    second = await stage.start_engine()
    await endpoint.script(keys=[entry(key, b=0.015, s=0.015, d=int(time.time() // DAY_SECONDS))])
    await worker.report(second)
    body = {"endpoint": endpoint.name, "api_key": key}
    status, problem = await stage.post("/route/", body, server=second)
    assert (status, problem["error"]) == (429, "key_dollars_per_day")


async def _is(value: Any, expected: float) -> bool:
    return await value == pytest.approx(expected)


async def test_the_openai_api_names_the_limit_in_its_own_shape(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key = key_of(endpoint)
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    await endpoint.script(keys=[entry(key, r=10.0)])
    url = stage.server.url + path(endpoint, "completions")
    for name, value in (("Authorization", f"Bearer {key}"), ("x-api-key", key)):
        async with stage.http.post(url, json={"max_tokens": 50}, headers={name: value}) as response:
            assert response.status == 200
    async with stage.http.post(url, json={"max_tokens": 50}, headers={"api-key": key}) as response:
        error = (await response.json())["error"]
        assert response.status == 429
        assert (error["type"], error["code"]) == ("rate_limit_error", "key_load_per_second")
        assert "Retry-After" in response.headers
    await model.server.close()


async def test_a_revoked_key_ends_its_waiting_calls_and_leaves_running_requests_alone(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    key, other = key_of(endpoint), key_of(endpoint, 2)
    worker = endpoint.worker()
    await endpoint.ready(worker)
    await endpoint.script(keys=[entry(key), entry(other, "other")])
    _, route, _ = await ask(stage, endpoint, key)
    await worker.report(draining=True)
    calls = [asyncio.ensure_future(ask(stage, endpoint, each)) for each in (key, other)]
    openai = asyncio.ensure_future(stage.call("POST", path(endpoint, "completions"), {}, key=key))
    await endpoint.lined_up(3)
    await endpoint.script(keys=[entry(other, "other")])
    assert (await calls[0])[0] == 401
    assert (await openai)[0] == 401
    assert (await ask(stage, endpoint, key, request_idx=route["request_idx"]))[0] == 401
    assert await worker.finish(route["request_idx"]) == {"success": True, "known": 1}
    await worker.report()
    assert (await calls[1])[0] == 200


async def test_a_key_of_another_endpoint_or_an_altered_one_is_refused(stage: Stage) -> None:
    endpoint, other = await stage.endpoint(), await stage.endpoint()
    key = key_of(other)
    await endpoint.ready(endpoint.worker())
    await other.script(keys=[entry(key)])
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    for text in (
        key,
        wrong,
        key_of(endpoint),
        key + "\n",
        f"sk-ep-{endpoint.id}-",
        "sk-ep-\u0661-" + "0" * 40,
    ):
        status, _ = await stage.post("/route/", {"endpoint": endpoint.name, "api_key": text})
        assert status == 401
    assert (await stage.call("GET", "/api/v0/endptjobs/", key=key))[0] == 401, "it opens no console"


async def test_high_priority_is_served_first_and_low_gets_its_share(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_queue_time=0.5)
    high, low = key_of(endpoint), key_of(endpoint, 2)
    await endpoint.script(
        groups=[1],
        keys=[entry(high, "high", p=Priority.HIGH.value), entry(low, "low", p=Priority.LOW.value)],
    )
    first = [asyncio.ensure_future(ask(stage, endpoint, low)) for _ in range(4)]
    await endpoint.lined_up(4)
    then = [asyncio.ensure_future(ask(stage, endpoint, high)) for _ in range(4)]
    await endpoint.lined_up(8)
    worker = endpoint.worker()
    # one request at a time: 100 load at 100 load/s is above max_queue_time
    await endpoint.ready(worker)
    order = []
    left = dict.fromkeys(first, "low") | dict.fromkeys(then, "high")
    while left:
        done, _ = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            order.append(left.pop(call))
            await worker.finish(call.result()[1]["request_idx"])
    assert order[0] == "high"
    assert order[:5].count("high") == 4
    assert order.count("low") == 4


async def test_a_flood_of_a_low_class_does_not_turn_a_high_class_away(stage: Stage) -> None:
    await stage.stop_engine(stage.server)
    await stage.start_engine(limits=Limits(queue_places_max=3))
    endpoint = await stage.endpoint()
    high, low = key_of(endpoint), key_of(endpoint, 2)
    await endpoint.script(
        groups=[1],
        keys=[entry(high, "high", p=Priority.HIGH.value), entry(low, "low", p=Priority.LOW.value)],
    )
    flood = [asyncio.ensure_future(ask(stage, endpoint, low)) for _ in range(3)]
    await endpoint.lined_up(3)
    call = asyncio.ensure_future(ask(stage, endpoint, high))
    done, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    (turned_away,) = done
    assert "queue is full" in turned_away.result()[1]["status"]
    await endpoint.ready(endpoint.worker())
    assert (await call)[1]["cost"] == 100
    await asyncio.gather(*flood)
