"""Jobs: one ticket is valid for a job's calls, by any method and by WebSocket, and for nothing else."""

import asyncio
import json
import time

import aiohttp
import pytest

from stoker_pyworker import WorkerConfig
from stoker_wire.security.fingerprint import TICKET_CHARS, fingerprint
from stoker_wire.security.ticket import TICKET_SECONDS, Ticket, sign_ticket
from stoker_wire.security.token import ticket_key
from tests.comfyui import PNG, ComfyUI, comfyui_handlers, make_image, part
from tests.pyworker.harness import BOUND_SECONDS, LAUNCH, TOKEN, until


@pytest.fixture
async def comfyui():
    server = await ComfyUI().start()
    yield server
    await server.stop()


@pytest.fixture
async def job_worker(make_worker, comfyui):
    async def make(**options):
        settings = options.pop("settings", None)
        handlers = options.pop("handlers", None) or comfyui_handlers()
        config = WorkerConfig(handlers=handlers, model_server_port=comfyui.port, **options)
        return await make_worker(config, settings=settings)

    return make


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(BOUND_SECONDS)) as session:
        yield session


def job_url(worker, ticket=None):
    return f"http://127.0.0.1:{worker.runtime.port}/pyworker/job/{ticket or worker.auth()['ticket']}"


async def test_a_client_of_comfyui_makes_an_image_with_one_ticket_in_its_base_address(
    job_worker, session, comfyui, engine
):
    worker = await job_worker()
    base = job_url(worker)
    images, events = await make_image(session, base)
    assert images == [PNG]
    assert [event["type"] for event in events if isinstance(event, dict)] == [
        "status", "execution_start", "executing", "progress", "progress", "progress", "executing",
    ]  # fmt: skip
    assert any(isinstance(event, bytes) and event.endswith(PNG) for event in events)
    # One job of the ticket's cost is load while it is open, and is served when its client ends it.
    assert worker.runtime.counts.load == 100
    async with session.get(base) as answered:
        record = await answered.json()
    assert (record["calls"], record["used"], record["cost"]) == (4, 100, 100)
    async with session.delete(base) as answered:
        assert (await answered.json())["ended"] is True
    await until(lambda: len(engine.finished) == 1)
    assert engine.finished[0]["status"] == "Success"
    assert worker.runtime.counts.totals().served == 100
    async with session.get(base) as answered:
        assert (answered.status, (await answered.json())["error"]) == (410, "job_ended")


async def test_a_job_without_a_call_can_be_read_and_ended(job_worker, session, engine):
    worker = await job_worker()
    ticket = worker.auth()["ticket"]
    base = job_url(worker, ticket)
    async with session.get(base) as answered:
        record = await answered.json()
    assert (record["begun"], record["calls"], record["cost"], record["ended"]) == (False, 0, 100, False)
    assert 0 < record["ends_in_seconds"] <= TICKET_SECONDS
    async with session.delete(base) as answered:
        assert (await answered.json())["ended"] is True
    await until(lambda: len(engine.finished) == 1)  # the engine stops counting its load
    for method in (session.get, session.delete):
        async with method(base) as answered:
            assert (answered.status, (await answered.json())["error"]) == (410, "job_ended")
    async with session.get(f"{base}/history/1") as answered:
        assert (answered.status, (await answered.json())["error"]) == (401, "ticket_used")


async def test_the_state_of_a_job_needs_a_ticket_that_was_issued(job_worker, session):
    worker = await job_worker()
    for ticket, status, code in (
        ("x", 401, "ticket_forged"),
        (worker.auth(worker="other")["ticket"], 401, "ticket_for_another_worker"),
        (worker.auth(expires_in=-1)["ticket"], 410, "job_ended"),
    ):
        async with session.get(job_url(worker, ticket)) as answered:
            assert (answered.status, (await answered.json())["error"]) == (status, code)


async def test_the_ticket_may_be_in_a_header_or_among_the_subprotocols(job_worker, session, comfyui):
    worker = await job_worker()
    base = f"http://127.0.0.1:{worker.runtime.port}"
    ticket = worker.auth()["ticket"]
    images, _ = await make_image(session, base, headers={"X-Stoker-Auth": ticket})
    assert images == [PNG]
    assert not any("X-Stoker-Auth" in headers for headers in comfyui.headers)
    offers = ("stoker", f"stoker.ticket.{ticket}")
    async with session.ws_connect(f"{base}/ws", protocols=offers) as socket:
        assert socket.protocol == "stoker"
        assert (await socket.receive_json())["type"] == "status"
    assert not any(ticket in str(headers) for headers in comfyui.headers)
    async with session.ws_connect(f"{base}/echo", protocols=("chat", *offers)) as socket:
        assert socket.protocol == "chat"


async def test_without_a_valid_ticket_no_call_reaches_the_model(job_worker, session, comfyui):
    worker = await job_worker()
    base = f"http://127.0.0.1:{worker.runtime.port}"
    seen = len(comfyui.seen)
    for url, status, code in (
        (f"{base}/history/1", 401, "auth_missing"),
        (f"{base}/pyworker/job/x/history/1", 401, "ticket_forged"),
        (f"{base}/pyworker/job//history/1", 401, "auth_missing"),
        (
            job_url(worker, worker.auth(worker="other")["ticket"]) + "/history/1",
            401,
            "ticket_for_another_worker",
        ),
        (job_url(worker, worker.auth(expires_in=-1)["ticket"]) + "/history/1", 401, "ticket_expired"),
        (job_url(worker) + "/queue", 403, "route_not_in_job"),
        (job_url(worker) + "/admin", 404, "route_unknown"),
        (job_url(worker) + "/pyworker/status", 404, "route_unknown"),
    ):
        async with session.get(url) as answered:
            assert (answered.status, (await answered.json())["error"]) == (status, code), url
    for path in ("/ws", "/pyworker/job/x/ws"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(base + path)
        assert refused.value.status == 401
    assert len(comfyui.seen) == seen
    assert worker.runtime.counts.load == 0


async def test_the_ticket_of_a_job_opens_no_other_route(job_worker, session):
    worker = await job_worker()
    ticket = worker.auth()["ticket"]
    async with session.get(job_url(worker, ticket) + "/prompt") as answered:
        assert answered.status == 200
    headers = {"X-Stoker-Auth": ticket}
    async with session.get(f"http://127.0.0.1:{worker.runtime.port}/queue", headers=headers) as answered:
        assert (answered.status, (await answered.json())["error"]) == (401, "ticket_used")


@pytest.mark.parametrize(
    "path",
    [
        "/history/../admin", "/history/%2e%2e/admin", "/history/..%2fadmin", "/files/../admin", "/files/..;/admin",
        "/files/%2e%2e/admin", "/files/a/%252e%252e/%252e%252e/admin", "/files/..%5cadmin", "//admin", "/history/a/b",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_a_pattern(job_worker, comfyui, path):
    worker = await job_worker()
    ticket = worker.auth()["ticket"]
    seen = len(comfyui.seen)
    for target in (path, f"/pyworker/job/{ticket}{path}"):
        answer = await worker.exchange(
            f"GET {target} HTTP/1.1\r\nHost: w\r\nX-Stoker-Auth: {ticket}\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 404 "), target
    assert len(comfyui.seen) == seen


async def test_a_pattern_covers_none_of_the_workers_own_paths(make_worker, comfyui, session):
    everything = [*comfyui_handlers(), part("/{path:path}", in_job=False, methods=("GET", "DELETE"))]
    worker = await make_worker(WorkerConfig(handlers=everything, model_server_port=comfyui.port))
    base, headers = f"http://127.0.0.1:{worker.runtime.port}", {"X-Stoker-Auth": worker.auth()["ticket"]}
    seen = len(comfyui.seen)
    for path, status in (
        ("/pyworker/status", 401),
        ("/pyworker/x", 404),
        ("/session/x", 404),
        ("/healthz", 200),
    ):
        async with session.get(base + path, headers=headers) as answered:
            assert answered.status == status, path
    assert len(comfyui.seen) == seen
    async with session.get(f"{base}/admin", headers=headers) as answered:
        assert await answered.json() == {"secret": True}, "the operator has declared every path"


async def test_paths_and_query_strings_reach_the_model_as_they_were_sent(job_worker, comfyui):
    worker = await job_worker()
    base = f"/pyworker/job/{worker.auth()['ticket']}"
    for target in (
        "/files/a%20b/%C3%A9+c.png?x=1&x=2&y=%2F..%2F&z",
        "/view?filename=a%26b.png&q=..%2f..",
        "/files/a%2Fb",
    ):
        answer = await worker.exchange(
            f"GET {base}{target} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert comfyui.seen[-1] == ("GET", target)


async def test_head_and_options_pass_where_they_are_declared_and_other_methods_do_not(
    job_worker, session, comfyui
):
    worker = await job_worker()
    base = job_url(worker)
    async with session.head(f"{base}/view?filename=a.png") as answered:
        assert answered.status == 200
        assert answered.headers["Content-Length"] == str(len(PNG))
        assert await answered.read() == b""
    assert comfyui.seen[-1][0] == "HEAD"
    async with session.options(f"{base}/prompt") as answered:
        assert answered.status == 204
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        async with session.request(method, f"{base}/view") as answered:
            assert (answered.status, answered.headers["Allow"]) == (405, "GET, HEAD")
    async with session.get(f"{base}/ws") as answered:
        assert (answered.status, (await answered.json())["error"]) == (426, "websocket_expected")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(f"{base}/prompt")
    assert refused.value.status == 400


async def test_a_job_is_bounded_in_workload_calls_and_time(job_worker, session, comfyui):
    worker = await job_worker(job_calls_max=4, job_seconds_max=4, job_idle_seconds=0.1)
    base = job_url(worker)
    async with session.post(f"{base}/prompt", json={"prompt": {}}) as answered:
        assert answered.headers["X-Model"] == "yes"
    async with session.post(f"{base}/prompt", json={"prompt": {}}) as answered:
        assert (answered.status, (await answered.json())["error"]) == (403, "ticket_cost_exceeded")
    async with session.get(f"{base}/history/1") as answered:
        assert answered.status == 200
    await until(lambda: not len(worker.runtime.jobs))
    assert worker.runtime.counts.load == 0
    # A settled job takes no more work, but its results can be read.
    async with session.post(f"{base}/upload/image", json={}) as answered:
        assert answered.status == 500, "ComfyUI expects a form"
    async with session.post(f"{base}/prompt", json={"prompt": {}}) as answered:
        assert (answered.status, (await answered.json())["error"]) == (410, "job_settled")
    for status in (200, 403):
        async with session.get(f"{base}/history/1") as answered:
            assert answered.status == status
    await until(lambda: not worker.runtime.jobs._open)
    async with session.get(f"{base}/history/1") as answered:
        assert (answered.status, (await answered.json())["error"]) == (401, "ticket_used")


async def test_an_open_websocket_keeps_its_job_and_ends_with_it(job_worker, session, comfyui, engine):
    worker = await job_worker(job_idle_seconds=0.01, job_seconds_max=1.5)
    async with session.ws_connect(job_url(worker) + "/echo") as socket:
        await socket.send_str("hello")
        assert (await socket.receive()).data == "hello"
        await until(lambda: engine.statuses[-1]["num_requests_working"] == 1)
        assert engine.statuses[-1]["cur_load"] == 100
        closed = await socket.receive()
        assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "job_ended")
    await until(lambda: engine.finished)
    # A job without a call that brings workload has served none.
    assert engine.finished[0]["status"] == "Cancelled"
    assert worker.runtime.counts.load == 0
    assert comfyui.cut == 0


async def test_a_draining_worker_serves_the_rest_of_a_job_and_then_ends(job_worker, session, comfyui):
    worker = await job_worker()
    comfyui.hold = True
    base = job_url(worker)
    async with session.ws_connect(f"{base}/ws?clientId=me") as socket:
        async with session.post(f"{base}/prompt", json={"prompt": {"3": {}}, "client_id": "me"}) as answered:
            prompt_id = (await answered.json())["prompt_id"]
        worker.runtime.health.drain("update")
        async with session.get(job_url(worker) + "/history/1") as answered:
            assert answered.status == 503
        comfyui.go.set()
        async for message in socket:
            if (
                message.type is aiohttp.WSMsgType.TEXT
                and json.loads(message.data)["data"].get("node", 1) is None
            ):
                break
    async with session.get(f"{base}/history/{prompt_id}") as answered:
        assert prompt_id in await answered.json()
    assert not worker.task.done()
    async with session.delete(base) as answered:
        assert answered.status == 200
    assert await asyncio.wait_for(worker.task, BOUND_SECONDS) == 0


async def test_the_end_of_a_drain_closes_websockets_as_going_away(job_worker, session, comfyui):
    worker = await job_worker(settings={"drain_seconds_max": 0.5})
    async with session.ws_connect(job_url(worker) + "/echo") as socket:
        worker.runtime.health.drain("update")
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (1001, "worker_ending")
    assert await asyncio.wait_for(worker.task, BOUND_SECONDS) == 0
    assert comfyui.cut == 0


async def test_a_prompt_that_breaks_the_model_is_reported_and_refused_in_other_jobs(
    job_worker, session, engine
):
    worker = await job_worker()
    base = job_url(worker)
    broken = json.dumps({"prompt": {"crash": 1}}).encode()
    async with session.get(f"{base}/history/1") as answered:
        assert answered.status == 200
    async with session.post(f"{base}/prompt", data=broken) as answered:
        assert (answered.status, (await answered.json())["error"]) == (502, "model_failed")
    async with session.delete(base) as answered:
        assert answered.status == 200
    await until(lambda: engine.finished)
    found = fingerprint("/prompt", broken)
    assert (engine.finished[0]["status"], engine.finished[0]["fingerprint"]) == ("Error", found)
    worker.request_idx += 1
    ticket = Ticket(
        e="llm", w=LAUNCH, c=100.0, r=worker.request_idx, n=1, x=time.time() + 60, b=(found[:TICKET_CHARS],)
    )
    base = job_url(worker, sign_ticket(ticket, ticket_key(TOKEN)))
    async with session.get(f"{base}/history/1") as answered:
        assert answered.status == 200
    async with session.post(f"{base}/prompt", data=broken) as answered:
        assert (answered.status, (await answered.json())["error"]) == (422, "request_breaks_workers")
    async with session.post(f"{base}/prompt", json={"prompt": {}}) as answered:
        assert answered.status == 200


async def test_uploads_with_any_content_type_pass_through(job_worker, session, comfyui):
    worker = await job_worker()
    form = aiohttp.FormData()
    form.add_field("image", PNG, filename="in.png", content_type="image/png")
    async with session.post(job_url(worker) + "/upload/image", data=form) as answered:
        assert (await answered.json())["name"] == "in.png"
    assert comfyui.uploads["in.png"] == PNG
