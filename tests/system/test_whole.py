"""From zero to an answer and back to zero through the real parts, also while parts are killed."""

import asyncio
import os
import signal
from importlib import metadata

import httpx

import stoker
from market.vast.client import VastMarket
from run.commands.doctor import findings_of
from run.demo.chaos import instance_pid

from .conftest import QUICK, ROUTE, TEXT_MODEL, payload, until


async def deployed(client: stoker.Serverless, name: str, **parameters: object) -> stoker.Endpoint:
    made = await client.endpoints.create(name, **(QUICK | parameters))
    await client.workergroups.create(made.id, **TEXT_MODEL)
    return await client.get_endpoint(name)


async def test_an_endpoint_serves_from_zero_goes_cold_wakes_and_leaves_nothing_behind(stack, client):
    endpoint = await deployed(client, "whole")

    first = await endpoint.request(ROUTE, payload(8), cost=8, timeout=60)
    assert first.json()["choices"][0]["text"]
    assert first.worker_id > 0
    assert first.timing.model_s is not None
    assert first.timing.waited_s > 0

    async def cold():
        workers = await client.endpoints.workers(endpoint.id)
        return workers and {worker.status for worker in workers} == {"stopped"}

    await until(cold, what="the worker to go cold after the inactivity timeout")
    woken = await endpoint.request(ROUTE, payload(8), cost=8, timeout=60)
    assert woken.worker_id == first.worker_id
    findings = [each async for each in findings_of(stack.state_dir / "settings.json", seconds_max=60)]
    assert [each for each in findings if each.result == "failed"] == []
    versions = next(each for each in findings if each.check == "worker versions")
    assert versions.found == f"1 of version {metadata.version('stoker-pyworker')}"

    kinds = [line["kind"] for line in await client.endpoints.decisions(endpoint.id, tail=200)]
    for kind in ("recruit", "drain", "stop", "activate"):
        assert kind in kinds
    assert all(line["reason"] for line in await client.endpoints.decisions(endpoint.id, tail=200))

    await client.endpoints.delete(endpoint.id)
    market = VastMarket(stack.settings.market_url, stack.keys.market_key)

    async def released():
        return await market.list() == []

    await until(released, what="the marketplace's list to be empty")
    await market.close()

    async with httpx.AsyncClient(trust_env=False) as scraper:
        worker = await scraper.get(f"http://127.0.0.1:{stack.settings.worker.metrics_port}/metrics")
        hosts = await scraper.get(f"{stack.settings.market_url}/metrics")
    assert 'stoker_market_call_seconds_count{call="create",outcome="done"} 1.0' in worker.text
    assert 'stoker_activity_seconds_count{activity="plan",outcome="done"}' in worker.text
    assert 'stoker_host_calls_total{method="PUT",route="/api/v0/asks/{id}/",status="200"} 1.0' in hosts.text


async def test_nothing_is_lost_or_leaked_when_each_process_is_killed_in_turn(stack, client):
    endpoint = await deployed(client, "killed", min_workers=2, inactivity_timeout=-1.0, min_load=1.0)
    await endpoint.request(ROUTE, payload(4), cost=4, timeout=60)

    async def one(number: int) -> stoker.Answer:
        await asyncio.sleep(number * 0.08)
        return await endpoint.request(ROUTE, payload(8), cost=8, timeout=90)

    async def hot():
        workers = await client.endpoints.workers(endpoint.id)
        return [worker for worker in workers if worker.status == "idle"]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(number)) for number in range(150)]
        await asyncio.sleep(1.0)
        for name in ("worker", "engine", "temporal", "market"):
            before = stack.pids[name]
            os.kill(before, signal.SIGKILL)
            await until(lambda name=name, before=before: stack.pids.get(name) not in (None, before))
        for program in ("model_server.py", "worker.py"):
            victim = (await until(hot, what="a hot worker"))[0]
            os.kill(instance_pid(stack.state_dir, victim.id, program), signal.SIGKILL)

    answers = [task.result() for task in asked]
    assert len(answers) == 150
    assert all(answer.status == 200 for answer in answers)
    assert len({answer.idempotency_key for answer in answers}) == 150, "no request is answered twice"

    market = VastMarket(stack.settings.market_url, stack.keys.market_key)
    workflow = (await stack.client()).get_workflow_handle("endpoint/killed")

    async def in_both_books():
        known = {worker["instance_id"] for worker in await workflow.query("workers")}
        return known == {instance.id for instance in await market.list()}

    await until(in_both_books, what="the marketplace's list to be what the workflow knows")
    await market.close()


async def test_no_secret_reaches_a_history_a_memo_or_a_log(stack, client, monkeypatch):
    endpoint = await deployed(client, "canary")
    await endpoint.request(ROUTE, payload(4), cost=4, timeout=60)
    record = await client.endpoints.get("canary")
    secrets = {
        "account key": stack.keys.account_key,
        "hmac secret": stack.keys.secret.decode(),
        "market key": stack.keys.market_key,
        "endpoint key": record.key,
        "signing key": stack.keys.signing_key_pem.splitlines()[1],
    }
    temporal = await stack.client()
    handle = temporal.get_workflow_handle("endpoint/canary")
    history = (await handle.fetch_history()).to_json()
    described = str((await handle.describe()).raw_description)
    logs = "".join(path.read_text(errors="replace") for path in (stack.state_dir / "logs").iterdir())
    processes = await asyncio.create_subprocess_exec(
        "ps", "axww", "-o", "args", stdout=asyncio.subprocess.PIPE
    )
    listing = (await processes.communicate())[0].decode()
    for name, secret in secrets.items():
        assert len(secret) > 20
        for place, text in {
            "history": history,
            "description": described,
            "log": logs,
            "process list": listing,
        }.items():
            assert secret not in text, f"the {name} stands in the {place}"


async def test_what_cannot_be_is_refused_with_a_code_and_a_sentence_and_changes_nothing(stack, client):
    made = await client.endpoints.create("refusing", **QUICK)
    await client.workergroups.create(made.id, **TEXT_MODEL)
    before = await client.workergroups.list()
    url = stack.settings.engine.url
    headers = {"Authorization": f"Bearer {stack.keys.account_key}"}
    groups, endpoints = "/api/v0/workergroups/", "/api/v0/endptjobs/"
    cases = [
        (groups, TEXT_MODEL | {"template_hash": "nope"}, 400, "no_such_template"),
        (groups, TEXT_MODEL | {"search_params": "num_gpus=="}, 400, "invalid_search_params"),
        (groups, TEXT_MODEL | {"search_params": "gpu_name in [RTX"}, 400, "invalid_search_params"),
        (groups, TEXT_MODEL | {"launch_args": "--disk much"}, 400, "invalid_launch_args"),
        (groups, TEXT_MODEL | {"endpoint_id": 1}, 404, "no_such_endpoint"),
        (endpoints, {"endpoint_name": "a b/c"}, 400, "invalid_args"),
        (endpoints, {"endpoint_name": "x", "target_util": 1.5}, 400, "invalid_args"),
        (endpoints, {"endpoint_name": "x", "max_worker": 1}, 400, "invalid_args"),
        ("/route/", {"endpoint": "nobody"}, 404, "no_such_endpoint"),
        ("/route/", {"endpoint": "refusing", "cost": -1}, 400, "invalid_args"),
    ]
    async with httpx.AsyncClient(base_url=url) as http:
        for path, body, status, code in cases:
            sent = {"endpoint_id": made.id} | body if path == groups else body
            answer = await http.post(path, json=sent, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (status, code), (path, body, answer.text)
            assert answer.json()["msg"]
        for path in (groups, endpoints, "/route/"):
            for body, status in ((b"{bad", 400), (b"[]", 400), (b"x" * 2_000_000, 413)):
                answer = await http.post(path, content=body, headers=headers)
                assert answer.status_code == status, (path, body[:10], answer.text)
            wrong = await http.post(
                path, json={"endpoint": "refusing"}, headers={"Authorization": "Bearer wrong"}
            )
            assert wrong.status_code == 401, (path, wrong.text)
    assert await client.workergroups.list() == before
    logs = "".join(path.read_text(errors="replace") for path in (stack.state_dir / "logs").iterdir())
    assert "Traceback" not in logs
    assert (await client.endpoints.status(made.id))["state"] == "active"
