"""The official async client against an endpoint. Prints one line of JSON per case."""

import asyncio
import collections
import time

import aiohttp
from report import case, run_all, setting
from vastai import CoroutineServerless, Serverless
from vastai.serverless.client.connection import _make_request
from vastai.serverless.client.request_status import RequestStatus

ENGINE = setting("engine")
KEY = setting("key")
ENDPOINT = setting("endpoint")


class Client(Serverless):
    """The official client with stoker's certificate authority for Vast's: a class attribute, no code changed."""

    SSL_CERT_URL = f"{ENGINE}/static/jvastai_root.cer"


class CoroutineClient(CoroutineServerless):
    SSL_CERT_URL = f"{ENGINE}/static/jvastai_root.cer"


async def model(url, path="seen", body=None):
    """The requests that a worker's model server received; its port is the worker's plus two."""
    host, port = url.rpartition(":")[::2]
    address = f"{host.replace('https', 'http')}:{int(port) + 2}/{path}"
    method = "POST" if body else "GET"
    async with aiohttp.ClientSession() as http, http.request(method, address, data=body) as answer:
        return await answer.json(content_type=None)


async def until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = await true()
        if value:
            return value
        await asyncio.sleep(0.1)
    raise TimeoutError("it did not become true")


@case
async def endpoints_are_found_by_name(client, endpoint):
    found = await client.get_endpoints()
    return {"names": [one.name for one in found], "id": endpoint.id, "keyed": endpoint.api_key[:6]}


@case
async def an_unknown_endpoint_is_named_as_such(client, endpoint):
    try:
        await client.get_endpoint("no-such-endpoint")
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the test asks about
        return str(fault)


@case
async def json_in_and_out(client, endpoint):
    tracker = RequestStatus()
    answer = await endpoint.request("/json", {"tokens": 7}, cost=7, serverless_request=tracker)
    return {
        "echo": answer["response"]["echo"],
        "ok": answer["ok"],
        "status": answer["status"],
        "latency": answer["latency"] > 0,
        "request_idx": answer["request_idx"] >= 1,
        "tracker": tracker.status,
    }


@case
async def text_comes_as_text(client, endpoint):
    answer = await endpoint.request("/text", {})
    return [answer["response"], answer["content_type"]]


@case
async def bytes_come_as_bytes(client, endpoint):
    answer = await endpoint.request("/binary", {})
    return [answer["response"] == bytes(range(256)) * 4, answer["content_type"]]


@case
async def server_sent_events_stream(client, endpoint):
    answer = await endpoint.request("/events", {"count": 4}, stream=True)
    return [one["n"] async for one in answer["response"]]


@case
async def json_lines_stream(client, endpoint):
    answer = await endpoint.request("/lines", {"count": 4}, stream=True)
    return [one["n"] async for one in answer["response"]]


@case
async def a_cost_of_zero_is_routed(client, endpoint):
    return (await endpoint.request("/json", {"tokens": 0}, cost=0))["ok"]


@case
async def thirty_at_once_are_all_answered(client, endpoint):
    asked = [endpoint.request("/json", {"tokens": 1, "number": n}, cost=1) for n in range(30)]
    answers = await asyncio.gather(*asked)
    return sorted(answer["response"]["echo"]["number"] for answer in answers)


@case
async def a_route_the_worker_does_not_have_is_a_404(client, endpoint):
    answer = await endpoint.request("/nowhere", {})
    return [answer["ok"], answer["status"]]


@case
async def a_500_of_the_model_is_retried(client, endpoint):
    answer = await endpoint.request("/json", {"tokens": 1, "fail_with": "500 once"}, cost=1)
    return [answer["ok"], answer["status"]]


@case
async def a_429_of_the_model_is_retried(client, endpoint):
    answer = await endpoint.request("/json", {"tokens": 1, "fail_with": "429 once"}, cost=1)
    return [answer["ok"], answer["status"]]


@case
async def without_retry_a_503_is_returned(client, endpoint):
    payload = {"tokens": 1, "fail_with": "503 no retry"}
    answer = await endpoint.request("/json", payload, cost=1, retry=False)
    return [answer["ok"], answer["status"], answer["response"]]


@case
async def retries_are_bounded_by_max_retries(client, endpoint):
    payload = {"tokens": 1, "fail_with": "502 always", "times": 99}
    answer = await client.queue_endpoint_request(endpoint, "/json", payload, cost=1, max_retries=2)
    return [answer["ok"], answer["status"]]


@case
async def a_400_of_the_model_is_not_retried(client, endpoint):
    answer = await endpoint.request("/json", {"tokens": 1, "fail_with": "400 bad"}, cost=1)
    return [answer["ok"], answer["status"], answer["response"]]


@case
async def a_worker_timeout_is_routed_again(client, endpoint):
    """The worker takes longer than `worker_timeout` once; the client comes again with the same index."""
    asked = client.queue_endpoint_request(
        endpoint, "/json", {"tokens": 1, "seconds": 1.5}, cost=1, worker_timeout=1.0, timeout=3.0
    )
    try:
        answer = await asked
    except TimeoutError as fault:
        return str(fault)[:9]
    return answer["ok"]


@case
async def a_request_can_be_cancelled(client, endpoint):
    asked = endpoint.request("/json", {"tokens": 1, "seconds": 20}, cost=1)
    await until(lambda: asyncio.sleep(0, asked.status == "In Progress"))
    asked.cancel()
    await until(lambda: asyncio.sleep(0, asked.status == "Cancelled"))
    return asked.status


@case
async def a_stream_can_be_left_in_its_middle(client, endpoint):
    name = f"left-{time.time_ns()}"
    payload = {"count": 200, "seconds": 0.05, "name": name}
    answer = await endpoint.request("/events", payload, stream=True)
    got = 0
    async for _ in answer["response"]:
        got += 1
        if got == 3:
            break
    await answer["response"].aclose()
    return {"got": got, "name": name, "url": answer["url"]}


@case
async def the_workers_are_listed(client, endpoint):
    workers = await endpoint.get_workers()
    return [{"id": w.id, "status": w.status, "perf": w.measured_perf, "load": w.cur_load} for w in workers]


@case
async def a_session_keeps_its_worker(client, endpoint):
    session = await endpoint.session(cost=1, lifetime=30)
    urls = set()
    for number in range(3):
        answer = await session.request("/json", {"tokens": 1, "number": number}, cost=1)
        urls.add(answer["url"])
        assert answer["response"]["echo"]["number"] == number, answer
    was_open = await session.is_open()
    record = await endpoint.get_session(session.session_id, session.auth_data)
    await session.close()
    return {"urls": len(urls), "open": was_open, "lifetime": record.lifetime, "after": session.open}


@case
async def a_session_ends_with_a_call_to_the_model(client, endpoint):
    name = f"closed-{time.time_ns()}"
    async with await endpoint.session(
        cost=1, lifetime=30, on_close_route="/closed", on_close_payload={"name": name}
    ) as session:
        url, session_id = session.url, session.session_id

    async def closed():
        return [one for one in (await model(url))["closed"] if one.get("name") == name]

    return [one["session_id"] == session_id for one in await until(closed)]


@case
async def a_session_expires(client, endpoint):
    session = await endpoint.session(cost=1, lifetime=1)

    async def gone():
        result = await _make_request(
            client=client,
            url=session.url,
            route="/session/health",
            api_key="",
            body={"session_id": session.session_id, "session_auth": session.auth_data},
            method="POST",
            retries=1,
        )
        return result["json"] == {"ok": False}

    await until(gone)
    try:
        await session.request("/json", {"tokens": 1}, cost=1)
    except ValueError as fault:
        return [str(fault), session.open]


@case
async def a_managed_endpoint_lives_and_dies(client, endpoint):
    from vastai.data.endpoint import EndpointConfig
    from vastai.data.workergroup import WorkergroupConfig

    name = f"managed-{time.time_ns()}"
    managed = await client.create_endpoint(
        EndpointConfig(endpoint_name=name, cold_workers=0, min_load=0.0, max_workers=0)
    )
    data = await client.fetch_endpoint(managed.id)
    group = await managed.add_workergroup(setting("template"), search_params="num_gpus=1")
    found = await client.find_workergroup_for_endpoint(managed.id)
    rolled = await client.update_workers(group)
    other = await client.create_workergroup(
        WorkergroupConfig(endpoint_name=name, template_hash=setting("template"), search_params="")
    )
    await client.delete_workergroup(other)
    await client.delete_workergroup(group)
    await managed.delete()
    return {
        "name": data.config.endpoint_name == name,
        "cold_workers": data.config.cold_workers,
        "key": data.api_key.startswith("sk-ep-"),
        "group": found == group,
        "rolled": rolled,
    }


@case
async def coroutines_do_the_same(client, endpoint):
    kinds = collections.Counter()
    async with CoroutineClient(KEY, autoscaler_url=ENGINE, webserver_url=ENGINE) as other:
        same = await other.get_endpoint(ENDPOINT)
        asked = (same.request("/json", {"tokens": 2}, cost=2) for _ in range(5))
        for answer in await asyncio.gather(*asked):
            kinds[answer["status"]] += 1
        async with await same.session(cost=1, lifetime=20) as session:
            kinds["in session"] = (await session.request("/json", {"tokens": 1}))["status"]
        stream = await same.request("/events", {"count": 3}, stream=True)
        kinds["events"] = len([one async for one in stream["response"]])
    return {str(kind): count for kind, count in kinds.items()}


async def main():
    async with Client(KEY, autoscaler_url=ENGINE, webserver_url=ENGINE) as client:
        endpoint = await client.get_endpoint(ENDPOINT)
        await run_all(client, endpoint, names=setting("cases"))


if __name__ == "__main__":
    asyncio.run(main())
