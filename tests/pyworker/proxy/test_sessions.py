"""Sessions: creation, use, expiry, limits and on-close calls."""

import asyncio
import json
import time

import pytest

from stoker_pyworker import HandlerConfig
from stoker_pyworker.proxy.hooks import StreamResponse
from tests.pyworker.harness import handlers, until


async def create(worker, payload=None, **options):
    auth = worker.auth(**options)
    answer = await worker.client.post(
        "/session/create", json={"auth_data": auth, "payload": {"lifetime": 60.0} | (payload or {})}
    )
    return auth, answer


def manage(worker, what, session, auth):
    return worker.client.post(f"/session/{what}", json={"session_id": session, "session_auth": auth})


async def test_a_session_is_created_used_read_and_ended(worker, model, engine):
    auth, answer = await create(worker, cost=80)
    assert answer.status_code == 201
    session = answer.json()["session_id"]
    assert len(session) >= 20
    assert 50 < answer.json()["expiration"] - time.time() <= 60
    # Every request of the session carries the auth_data that opened it.
    for number in range(3):
        used = await worker.post("/echo", {"n": number}, auth=auth, session_id=session)
        assert used.json() == {"n": number}
    record = (await manage(worker, "get", session, auth)).json()
    assert record["auth_data"] == auth
    # Three requests extended the session by three lifetimes.
    assert record["expiration"] == pytest.approx(answer.json()["expiration"] + 180)
    assert (await manage(worker, "health", session, auth)).json() == {"ok": True}
    ended = await manage(worker, "end", session, auth)
    assert ended.json() == {"ended": True, "removed_session": session}
    assert (await manage(worker, "health", session, auth)).json() == {"ok": False}
    gone = await worker.post("/echo", auth=auth, session_id=session)
    assert (gone.status_code, gone.json()["error"]) == (410, "session_gone")
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Success"
    await until(lambda: engine.total("cur_perf") == 80)


async def test_a_ticket_opens_only_one_session(worker):
    _, answer = await create(worker, token="7.x.y")
    assert (answer.status_code, answer.json()["error"]) == (401, "ticket_forged")
    auth, answer = await create(worker)
    again = await worker.client.post("/session/create", json={"auth_data": auth, "payload": {}})
    assert (again.status_code, again.json()["error"]) == (401, "ticket_used")
    # The ticket of a session is not valid outside it.
    assert (await worker.post("/echo", auth=auth)).status_code == 401


async def test_a_session_accepts_only_the_auth_that_opened_it(worker):
    auth, answer = await create(worker)
    session = answer.json()["session_id"]
    other = worker.auth()
    before = worker.runtime.sessions._open[session].expires_at
    used = await worker.post("/echo", auth=other, session_id=session)
    assert (used.status_code, used.json()["error"]) == (401, "session_foreign")
    # A refused request does not extend the session.
    assert worker.runtime.sessions._open[session].expires_at == before
    for what in ("get", "end", "health"):
        assert (await manage(worker, what, session, other)).status_code == 401
        assert (await manage(worker, what, session, None)).status_code == 401
    assert (await manage(worker, "get", session, auth)).status_code == 200


async def test_a_session_counts_as_load_with_its_cost(worker, engine):
    await create(worker, cost=70)
    await until(lambda: engine.statuses[-1]["cur_load"] == 70)
    assert engine.statuses[-1]["num_requests_working"] == 1


async def test_the_number_of_sessions_is_limited(make_worker, engine):
    worker = await make_worker(max_sessions=2)
    opened = [await create(worker) for _ in range(2)]
    _, refused = await create(worker)
    assert (refused.status_code, refused.json()["error"]) == (429, "too_many_sessions")
    assert "retry-after" in refused.headers
    auth, first = opened[0]
    await manage(worker, "end", first.json()["session_id"], auth)
    _, third = await create(worker)
    assert third.status_code == 201


async def test_an_expired_session_sends_its_on_close_call(worker, model):
    payload = {"lifetime": 0.05, "on_close_route": "/closed", "on_close_payload": {"job": 4}}
    auth, answer = await create(worker, payload)
    session = answer.json()["session_id"]
    await until(lambda: any(seen.path == "/closed" for seen in model.seen))
    call = next(seen for seen in model.seen if seen.path == "/closed")
    assert json.loads(call.body) == {"job": 4, "session_id": session}
    assert (await worker.post("/echo", auth=auth, session_id=session)).status_code == 410
    assert (await manage(worker, "get", session, auth)).status_code == 400
    await until(lambda: worker.runtime.counts.load == 0)


async def test_the_end_of_a_session_cancels_its_running_request(worker, model):
    auth, answer = await create(worker)
    session = answer.json()["session_id"]
    running = asyncio.create_task(worker.post("/held", auth=auth, session_id=session))
    await until(lambda: model.answering == 1)
    await manage(worker, "end", session, auth)
    cut = await running
    assert (cut.status_code, cut.json()["error"]) == (410, "session_ended")
    await until(lambda: model.cut == 1)


async def test_an_on_close_call_does_not_wait_for_the_connections_of_requests(make_worker, model):
    worker = await make_worker(model_connections_max=1)
    auth, answer = await create(worker, {"on_close_route": "/closed"})
    held = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: any(seen.path == "/closed" for seen in model.seen))
    model.go.set()
    assert (await held).status_code == 200


async def test_slow_on_close_calls_do_not_block_requests(make_worker, model):
    worker = await make_worker(model_connections_max=2, max_sessions=None)
    opened = [await create(worker, {"on_close_route": "/held"}) for _ in range(40)]
    for auth, answer in opened:
        await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: model.answering > 1)
    assert (await asyncio.wait_for(worker.post("/echo", {"n": 1}), 4)).json() == {"n": 1}
    # The calls are limited in number.
    assert model.answering < 40
    model.go.set()
    await until(lambda: sum(seen.path == "/held" for seen in model.seen) == 40)


@pytest.mark.parametrize("prepared", [False, True])
async def test_a_hook_that_outlives_its_session_cannot_write_to_the_next_response(
    make_worker, model, prepared
):
    go, wrote = asyncio.Event(), []

    async def outliving(request, response):
        answer = StreamResponse()
        try:
            await response.read()
        except asyncio.CancelledError:
            await go.wait()
        if prepared:
            answer._request = request  # as if it was prepared before the end
        else:
            await answer.prepare(request)
        await answer.write(b"too late")
        wrote.append(answer)
        return answer

    sse = HandlerConfig(route="/sse", allow_parallel_requests=True, response_generator=outliving)
    worker = await make_worker(handlers=[each for each in handlers() if each.route != "/sse"] + [sse])
    auth, opened = await create(worker)
    session = opened.json()["session_id"]
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/sse", auth=auth, session_id=session))
    writer.write(worker.raw_request("/held", {"mine": 1}))
    await until(lambda: model.answering == 1)
    (running,) = worker.runtime.proxy.active
    await manage(worker, "end", session, auth)
    await until(lambda: any(seen.path == "/held" for seen in model.seen))
    go.set()
    await until(running._task.done)
    model.go.set()
    answers = await asyncio.wait_for(reader.readuntil(b'{"mine": 1}'), 4)
    assert b"too late" not in answers
    assert answers.count(b"HTTP/1.1 ") == 2
    assert not wrote
    writer.close()


@pytest.mark.parametrize(
    "route",
    [
        "http://169.254.169.254/latest", "//evil/x", "closed", "/a\r\nX: y", "/with blank", "",
        "/health", "/undeclared", "/closed?all=yes", "/closed/", "/../closed", "/%63losed",
    ],
)  # fmt: skip
async def test_an_on_close_route_must_be_configured(worker, model, route):
    _, answer = await create(worker, {"on_close_route": route})
    assert (answer.status_code, answer.json()["error"]) == (422, "session_invalid")
    assert "/closed" in answer.json()["msg"]
    assert len(worker.runtime.sessions) == 0


def one_route(route, **options):
    """All handlers, with other options for one route."""
    parallel = options.pop("allow_parallel_requests", True)
    others = [each for each in handlers() if each.route != route]
    return [*others, HandlerConfig(route=route, allow_parallel_requests=parallel, **options)]


async def test_an_on_close_call_is_limited_by_the_sessions_cost(make_worker, model, engine):
    worker = await make_worker(
        handlers=one_route("/closed", workload_calculator=lambda p: p.get("tokens", 1))
    )
    # 200 is over the session's cost of 100; 100 is not.
    payload = {"on_close_route": "/closed", "on_close_payload": {"tokens": 200}}
    _, refused = await create(worker, payload, cost=100)
    assert (refused.status_code, refused.json()["error"]) == (403, "ticket_cost_exceeded")
    assert len(worker.runtime.sessions) == worker.runtime.counts.held == 0
    auth, answer = await create(worker, payload | {"on_close_payload": {"tokens": 100}}, cost=100)
    assert answer.status_code == 201
    await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: any(seen.path == "/closed" for seen in model.seen))


async def test_an_on_close_call_runs_the_routes_hooks(make_worker, model):
    worker = await make_worker(
        handlers=one_route("/closed", request_parser=lambda p: {"job": p["job"], "by": "parser"})
    )
    payload = {"on_close_route": "/closed", "on_close_payload": {"job": 4, "admin": True}}
    auth, answer = await create(worker, payload)
    await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: any(seen.path == "/closed" for seen in model.seen))
    call = next(seen for seen in model.seen if seen.path == "/closed")
    assert json.loads(call.body) == {"job": 4, "by": "parser"}


async def test_a_session_counts_as_load_until_its_on_close_call_is_answered(worker, model):
    auth, answer = await create(worker, {"on_close_route": "/held"}, cost=70)
    await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: model.answering == 1)
    assert worker.runtime.counts.load == 70
    model.go.set()
    await until(lambda: worker.runtime.counts.load == 0)


async def test_an_on_close_call_waits_in_the_queue(make_worker, model):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    auth, answer = await create(worker, {"on_close_route": "/closed"})
    held = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    await manage(worker, "end", answer.json()["session_id"], auth)
    await until(lambda: len(worker.runtime.queue) == 1)
    assert not any(seen.path == "/closed" for seen in model.seen)
    model.go.set()
    assert (await held).status_code == 200
    await until(lambda: any(seen.path == "/closed" for seen in model.seen))
    # The queue continues after it.
    assert (await worker.post("/echo", {"n": 1})).json() == {"n": 1}


async def test_an_on_close_route_with_a_hook_is_refused(make_worker):
    async def answered(request, response):
        return StreamResponse()

    worker = await make_worker(handlers=one_route("/closed", response_generator=answered))
    _, answer = await create(worker, {"on_close_route": "/closed"})
    assert (answer.status_code, answer.json()["error"]) == (422, "session_invalid")


@pytest.mark.parametrize("lifetime", [0, -1, 1e9, "soon", None, 1e400])
async def test_an_invalid_lifetime_is_refused(worker, lifetime):
    text = json.dumps({"auth_data": worker.auth(), "payload": {"lifetime": lifetime}})
    answer = await worker.client.post("/session/create", content=text)
    assert answer.status_code == 422


async def test_requests_extend_a_session_at_most_to_the_lifetime_limit(worker):
    week = 7 * 86400.0
    auth, answer = await create(worker, {"lifetime": week})
    session = answer.json()["session_id"]
    for _ in range(3):
        assert (await worker.post("/echo", auth=auth, session_id=session)).status_code == 200
    record = (await manage(worker, "get", session, auth)).json()
    assert record["expiration"] <= time.time() + week


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"auth_data": 4}', b'{"payload": {}}', b'{"auth_data": {"ticket": 1}}']
)
async def test_a_malformed_session_create_is_422(worker, body):
    assert (await worker.client.post("/session/create", content=body)).status_code == 422


@pytest.mark.parametrize("where", ["auth_data", "on_close_payload"])
async def test_a_large_session_create_is_refused(worker, where):
    opening = {"auth_data": worker.auth(), "payload": {"lifetime": 60.0}}
    (opening if where == "auth_data" else opening["payload"]).setdefault(where, {})["text"] = "x" * 2_000_000
    answer = await worker.client.post("/session/create", json=opening)
    assert (answer.status_code, answer.json()["error"]) == (413, "session_too_large")
    assert len(worker.runtime.sessions) == worker.runtime.counts.held == 0


async def test_session_calls_without_an_id_are_422(worker):
    assert (await worker.client.post("/session/end", json={})).status_code == 422
    assert (await worker.client.post("/session/end", content=b"{")).status_code == 422
    assert (await worker.client.post("/session/end", content=b'{"session_id": "\xed"}')).status_code == 422
