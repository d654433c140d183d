"""Web pages call the OpenAI API if the endpoint's `allowed_origins` name them, and no other part of the engine."""

import pytest

from tests.engine.api.test_openai import ModelWorker, path
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
