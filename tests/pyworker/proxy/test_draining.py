"""A draining worker finishes running requests, refuses new ones, reports it and ends."""

import asyncio

import httpx

from tests.pyworker.harness import TOKEN, handlers, until

BEARER = {"authorization": f"Bearer {TOKEN}"}


async def test_a_drain_finishes_running_requests_and_refuses_new_ones(worker, model, engine):
    running = asyncio.create_task(worker.post("/held", {"n": 1}))
    await until(lambda: model.answering == 1)
    asked = await worker.client.post("/pyworker/drain", headers=BEARER)
    assert asked.json() == {"ok": True, "holding": 1}
    refused = await worker.post("/echo")
    assert (refused.status_code, refused.json()["error"]) == (503, "worker_draining")
    assert "retry-after" in refused.headers
    await until(lambda: engine.statuses[-1]["draining"])
    assert engine.statuses[-1]["num_requests_working"] == 1
    assert (await worker.client.get("/healthz")).status_code == 503
    model.go.set()
    assert (await running).json() == {"n": 1}
    assert await worker.task == 0
    # The last report shows no running request, and the outcome of each.
    assert engine.statuses[-1]["num_requests_working"] == 0
    assert sorted(item["status"] for item in engine.finished) == ["Rejected", "Success"]


async def test_a_drain_under_load_loses_no_request(make_worker, model, engine):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    answers = []

    async def client():
        while True:
            try:
                answer = await worker.post("/echo", {"n": 1}, cost=1)
            except httpx.TransportError:
                # The request was never accepted; a client routes it again.
                return
            answers.append(answer.status_code)
            if answer.status_code != 200:
                return

    clients = [asyncio.create_task(client()) for _ in range(8)]
    await until(lambda: len(answers) > 100)
    await worker.client.post("/pyworker/drain", headers=BEARER)
    await asyncio.gather(*clients)
    assert await worker.task == 0
    assert set(answers) <= {200, 503}
    # Every response of the model reached a client, and each request was reported once.
    served = sum(seen.path == "/echo" for seen in model.seen) - 2
    assert answers.count(200) == served
    statuses = [item["status"] for item in engine.finished]
    assert statuses.count("Success") == served
    assert engine.total("cur_perf") == served
    assert len({item["request_idx"] for item in engine.finished}) == len(engine.finished)


async def test_a_drain_waits_for_open_sessions_and_serves_them(worker, model):
    auth = worker.auth()
    opened = await worker.client.post(
        "/session/create", json={"auth_data": auth, "payload": {"lifetime": 60}}
    )
    session = opened.json()["session_id"]
    await worker.client.post("/pyworker/drain", headers=BEARER)
    new = await worker.client.post("/session/create", json={"auth_data": worker.auth(), "payload": {}})
    assert new.json()["error"] == "worker_draining"
    assert (await worker.post("/echo", {"n": 2}, auth=auth, session_id=session)).json() == {"n": 2}
    assert not worker.task.done()
    await worker.client.post("/session/end", json={"session_id": session, "session_auth": auth})
    assert await worker.task == 0


async def test_a_drain_is_bounded_by_its_deadline(make_worker, model, engine):
    worker = await make_worker(settings={"drain_seconds_max": 0.2})
    running = asyncio.create_task(worker.post("/held"))
    await until(lambda: model.answering == 1)
    await worker.client.post("/pyworker/drain", headers=BEARER)
    assert await worker.task == 0
    cut = await running
    assert (cut.status_code, cut.json()["error"]) == (503, "worker_ending")
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Error"


async def test_an_update_writes_its_file_and_drains(worker, tmp_path):
    answer = await worker.client.post("/pyworker/update", headers=BEARER)
    assert answer.json() == {"ok": True}
    assert (tmp_path / ".force_update").exists()
    assert await worker.task == 0


async def test_drain_and_update_need_the_workers_token(worker, tmp_path):
    for path in ("/pyworker/drain", "/pyworker/update"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}):
            answer = await worker.client.post(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, "token_wrong")
    assert not worker.runtime.health.draining
    assert not (tmp_path / ".force_update").exists()


async def test_an_unsecured_worker_refuses_to_drain(make_worker):
    worker = await make_worker(settings={"master_token": "", "unsecured": True})
    answer = await worker.client.post("/pyworker/drain", headers={"authorization": "Bearer"})
    assert answer.status_code == 401


async def test_a_written_response_is_sent_before_the_end(worker):
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/binary"))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    await worker.client.post("/pyworker/drain", headers=BEARER)
    body = await reader.readexactly(256 * 1024)
    assert body == bytes(range(256)) * 1024
    writer.close()
    assert await worker.task == 0


async def test_a_cancelled_worker_refuses_new_requests_while_it_stops(worker, model, engine):
    opening = {"lifetime": 60, "on_close_route": "/held"}
    opened = await worker.client.post(
        "/session/create", json={"auth_data": worker.auth(), "payload": opening}
    )
    assert opened.status_code == 201
    worker.task.cancel()
    await until(lambda: model.answering == 1)
    refused = await worker.post("/echo")
    assert (refused.status_code, refused.json()["error"]) == (503, "worker_draining")
    model.go.set()
    await asyncio.gather(worker.task, return_exceptions=True)
    assert engine.statuses[-1]["draining"]
