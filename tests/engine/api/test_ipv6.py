"""A worker at an IPv6 address: its url has brackets, and engine and client accept it."""

from pathlib import Path

import stoker
from tests.engine.api.model_server import MODEL, ModelServer, pyworker
from tests.engine.api.openai.test_openai import path
from tests.engine.conftest import Stage


async def test_a_worker_at_an_ipv6_address_is_reached_by_engine_and_client(
    stage: Stage, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    ipv6 = {"public_host": "::1"}
    payload = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    async with pyworker(
        stage, endpoint, ModelServer(), tmp_path / "worker", host="::1", environment=ipv6
    ) as worker:
        url = f"http://[::1]:{worker.port}"
        known = stage.server.engine.directory.named(endpoint.name)
        assert [each.route_url for each in known.workers.values()] == [url]
        status, answer = await stage.call(
            "POST", path(endpoint, "chat/completions"), payload, key=endpoint.key
        )
        assert status == 200, answer
        async with stoker.Serverless(endpoint.key, url=stage.server.url) as client:
            handle = await client.get_endpoint(endpoint.name)
            direct = await handle.request("/v1/chat/completions", payload)
            assert direct.worker_url == url
