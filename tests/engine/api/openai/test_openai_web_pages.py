"""Web pages call the OpenAI API if the endpoint's `allowed_origins` name them, and no other part of the engine."""

import pytest
from aiohttp import web

from stoker_wire.security.token import client_key_digest, mint_client_key
from tests.engine.api.openai.test_openai import ModelWorker, path
from tests.engine.conftest import Stage

PAGE = "https://chat.example.com"


@pytest.mark.parametrize("allowed", [[PAGE], ["*"]], ids=["named", "every page"])
async def test_a_page_that_the_endpoint_names_may_call(stage: Stage, allowed: list[str]) -> None:
    endpoint = await stage.endpoint(allowed_origins=allowed)
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    url = stage.server.url + path(endpoint, "completions")
    asks = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        "Sec-Fetch-Site": "cross-site",
    }
    async with stage.http.options(url, headers=asks) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Access-Control-Allow-Headers"] == asks["Access-Control-Request-Headers"]
        assert response.headers["Vary"] == "Origin"
    fields = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {endpoint.key}"}
    async with stage.http.post(url, json={}, headers=fields) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    async with stage.http.post(url, json={}, headers=fields | {"Authorization": "Bearer x"}) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    async with stage.http.post(stage.server.url + "/route/", json={}, headers=fields) as response:
        assert response.status == 403, "other parts of the engine stay closed"
    await model.server.close()


@pytest.mark.parametrize("allowed", [[], ["https://other.example.com"]], ids=["off", "another page"])
async def test_other_pages_may_not(stage: Stage, allowed: list[str]) -> None:
    endpoint = await stage.endpoint(allowed_origins=allowed)
    url = stage.server.url + path(endpoint, "completions")
    fields = {"Origin": PAGE, "Authorization": f"Bearer {endpoint.key}"}
    for method in ("OPTIONS", "POST"):
        async with stage.http.request(method, url, headers=fields) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "cross_origin"
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_an_origin_is_compared_as_browsers_write_it_and_null_only_by_the_star(stage: Stage) -> None:
    named = await stage.endpoint(allowed_origins=["https://Chat.Example.com"])
    star = await stage.endpoint(allowed_origins=["*"])
    for endpoint, origin, status in (
        (named, PAGE, 204),
        (named, "null", 403),  # of a sandboxed frame or a file: any page can make one
        (named, "https://chat.example.com.evil.example", 403),
        (named, "https://chat.example.com:8443", 403),
        (named, "http://chat.example.com", 403),
        (star, "null", 204),
    ):
        url = stage.server.url + path(endpoint, "completions")
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with stage.http.options(url, headers=asks) as response:
            assert response.status == status, origin
            given = response.headers.get("Access-Control-Allow-Origin")
            assert given == (origin if status == 204 else None)
            # keys travel in header fields, so a page needs no cookies, and none are allowed
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert response.headers["Vary"] == "Origin"


async def test_every_answer_varies_by_origin_and_a_workers_cors_fields_are_dropped(stage: Stage) -> None:
    endpoint = await stage.endpoint(allowed_origins=[PAGE])
    model = ModelWorker(endpoint.worker())

    async def answer(request: web.Request) -> web.StreamResponse:
        fields = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}
        return web.json_response({}, headers=fields | {"Vary": "Accept"})

    model.answer = answer
    await model.start()
    await endpoint.ready(model.worker)
    url = stage.server.url + path(endpoint, "completions")
    key = {"Authorization": f"Bearer {endpoint.key}"}
    async with stage.http.post(url, json={}, headers=key) as response:
        assert response.headers.getall("Vary") == ["Accept", "Origin"]
        assert not any(name.lower().startswith("access-control") for name in response.headers)
    async with stage.http.post(url, json={}, headers=key | {"Origin": PAGE}) as response:
        assert response.headers.getall("Access-Control-Allow-Origin") == [PAGE]
        assert "Access-Control-Allow-Credentials" not in response.headers
    await model.server.close()


async def test_a_page_calls_with_a_named_key_and_reads_why_it_is_refused(stage: Stage) -> None:
    endpoint = await stage.endpoint(allowed_origins=[PAGE])
    model = ModelWorker(endpoint.worker())
    await model.start()
    await endpoint.ready(model.worker)
    key = mint_client_key(endpoint.id, b"\1" * 20)
    await endpoint.script(keys=[{"n": "web", "h": client_key_digest(key), "r": 1.0}])
    url = stage.server.url + path(endpoint, "completions")
    fields = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {key}"}
    for status in (200, 429):
        async with stage.http.post(url, json={"max_tokens": 10}, headers=fields) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
    await model.server.close()
