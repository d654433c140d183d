"""While Temporal cannot be read, unknown endpoints are not answered as empty or missing."""

from typing import Any

import pytest
from temporalio.client import Client

from engine.app import start_server
from tests.engine.conftest import ALICE, Stage, settings
from workflows.temporal_worker.converter import data_converter

READS = [
    ("GET", "/api/v0/endptjobs/", None),
    ("GET", "/api/v0/endptjobs/7/", None),
    ("PUT", "/api/v0/endptjobs/7/", {"max_workers": 1}),
    ("DELETE", "/api/v0/endptjobs/7/", None),
    ("POST", "/api/v0/endptjobs/7/rotate_key/", {}),
    ("GET", "/api/v0/endptjobs/7/status/", None),
    ("GET", "/api/v0/endptjobs/7/decisions/", None),
    ("GET", "/api/v0/endptjobs/7/costs/", None),
    ("GET", "/api/v0/endptjobs/7/advice/", None),
    ("GET", "/api/v0/workergroups/", None),
    ("GET", "/api/v0/autojobs/7/", None),
    ("DELETE", "/api/v0/workergroups/7/", None),
    ("POST", "/api/v0/workergroups/", {"endpoint_id": 7, "template_hash": "t"}),
    ("POST", "/api/v0/workergroups/", {"endpoint_name": "llm", "template_hash": "t"}),
    ("POST", "/get_endpoint_workers/", {"id": 7}),
    ("POST", "/get_endpoint_workers/", {"endpoint": "llm"}),
    ("POST", "/get_autogroup_workers/", {"id": 7}),
    ("POST", "/get_workergroup_workers/", {"id": 7}),
    ("POST", "/get_endpoint_logs/", {"id": 7}),
    ("POST", "/get_autogroup_logs/", {"id": 7}),
    ("POST", "/update_workers/", {"workergroup_id": 7}),
    ("GET", "/api/v0/instances/", None),
    ("GET", "/api/v1/instances/", None),
    ("GET", "/api/v0/instances/7/", None),
    ("GET", "/openai/llm/v1/models", None),
    ("POST", "/openai/llm/v1/chat/completions", {"messages": []}),
    ("GET", "/readyz", None),
]


async def test_before_the_first_poll_every_read_is_answered_with_a_retry(bare_stage: Stage) -> None:
    nowhere = await Client.connect("127.0.0.1:9", lazy=True, data_converter=data_converter)
    server = await start_server(settings(market_url="http://127.0.0.1:9"), nowhere)
    bare_stage.servers.append(server)
    headers = {"Authorization": f"Bearer {ALICE}"}
    for method, path, body in READS:
        async with bare_stage.http.request(method, server.url + path, json=body, headers=headers) as answer:
            assert answer.status == 503, (method, path, await answer.text())
            assert int(answer.headers["Retry-After"]) >= 1, (method, path)
    status, message = await bare_stage.post("/route/", {"endpoint": "llm"}, key=ALICE)
    assert (status, "url" in message) == (200, False), (
        "the official client gives up at a 503, so it gets Waiting"
    )


@pytest.mark.parametrize(
    ("path", "status"), [("/api/v0/endptjobs/2000000000/", 404), ("/api/v0/endptjobs/", 200)]
)
async def test_while_temporal_does_not_answer_known_endpoints_are_shown_and_unknown_ones_get_503(
    stage: Stage, path: str, status: int
) -> None:
    endpoint = await stage.endpoint()
    assert (await stage.call("GET", path, key=ALICE))[0] == status

    async def fails(started: float) -> None:
        raise TimeoutError

    watcher: Any = stage.server.engine.endpoint_watcher
    watcher._poll_all = watcher._poll_changes = fails
    assert not await watcher.poll()

    one, rows = f"/api/v0/endptjobs/{endpoint.id}/", "/api/v0/endptjobs/"
    assert (await stage.call("GET", one, key=ALICE))[0] == 200
    assert endpoint.id in [row["id"] for row in (await stage.call("GET", rows, key=ALICE))[1]["results"]]
    status, problem = await stage.call("GET", "/api/v0/endptjobs/2000000000/", key=ALICE)
    assert (status, problem["error"]) == (503, "endpoints_not_read")
