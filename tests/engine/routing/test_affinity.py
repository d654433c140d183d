"""Requests with one affinity key reach one worker, through any engine, by the route call and by the OpenAI API."""

import pytest

from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import Stage


async def test_requests_of_one_key_go_to_one_worker_through_every_engine(stage: Stage) -> None:
    second = await stage.start_engine()
    endpoint = await stage.endpoint()
    workers = [endpoint.worker(f"{letter * 12}", 101 + number) for number, letter in enumerate("abcd")]
    await endpoint.ready(*workers)
    for worker in workers:
        await worker.report(second)
    for key in ("one", "two", "three"):
        given = []
        for number in range(4):
            server = second if number % 2 else None
            answer = await endpoint.route(server, cost=100, affinity=key)
            given.append(answer["url"])
            worker = next(each for each in workers if each.url == answer["url"])
            await worker.finish(answer["request_idx"], server=server)
        assert len(set(given)) == 1


async def test_the_key_may_be_a_header_openais_parameter_or_the_prompts_beginning(stage: Stage) -> None:
    endpoint = await stage.endpoint(affinity_prefix_bytes=24)
    models = [ModelWorker(endpoint.worker(f"{letter * 12}", 101 + n)) for n, letter in enumerate("abcd")]
    for model in models:
        await model.start()
    await endpoint.ready(*(model.worker for model in models))
    url = stage.server.url + path(endpoint, "chat/completions")

    async def served_by(payload: dict, **headers: str) -> set[str]:
        reached = set()
        for _ in range(4):
            before = [len(model.seen) for model in models]
            fields = {"Authorization": f"Bearer {endpoint.key}"} | headers
            async with stage.http.post(url, json=payload, headers=fields) as response:
                assert response.status == 200, await response.text()
            changed = [m for m, count in zip(models, before, strict=True) if len(m.seen) > count]
            reached |= {model.worker.launch_id for model in changed}
            for model in changed:
                await model.worker.finish(model.seen[-1]["auth_data"]["request_idx"])
        return reached

    def chat(text: str) -> dict:
        return {"messages": [{"role": "system", "content": "x" * 30}, {"role": "user", "content": text}]}

    assert len(await served_by({}, **{"X-Stoker-Affinity": "a"})) == 1
    assert len(await served_by({"prompt_cache_key": "a"})) == 1
    assert len(await served_by(chat("one")) | await served_by(chat("two"))) == 1
    assert len(await served_by({})) == 4, "without a key the workers take turns"
    for model in models:
        await model.server.close()


@pytest.mark.parametrize("call", ["route", "openai"])
async def test_a_key_that_is_too_long_is_refused(stage: Stage, call: str) -> None:
    endpoint = await stage.endpoint()
    long = "k" * 257
    if call == "route":
        body = {"endpoint": endpoint.name, "affinity": long}
        status, answer = await stage.post("/route/", body, key=endpoint.key)
        message = answer["msg"]
    else:
        headers = {"Authorization": f"Bearer {endpoint.key}", "X-Stoker-Affinity": long}
        url = stage.server.url + path(endpoint, "completions")
        async with stage.http.post(url, json={}, headers=headers) as response:
            status, message = response.status, (await response.json())["error"]["message"]
    assert status == 400
    assert "affinity" in message.lower()
