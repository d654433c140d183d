"""A user's `worker.py` on both packages: only the import line differs.

Each request goes through `/route/` by hand, so that the answers of both workers can be compared to the byte.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.vast.stage.calls import call
from tests.vast.stage.deployment import PEER_DIR, Deployment

Ready = Callable[[str], dict[str, Any]]
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(deployment: Deployment, ready: Ready) -> Ask:
    """A routed request to the worker of an endpoint."""

    def ask(endpoint: str, path: str, payload: Any, *, cost: float = 10) -> httpx.Response:
        ready(endpoint)
        auth = deployment.api("POST", "/route/", {"endpoint": endpoint, "cost": cost})
        assert "url" in auth, auth
        return deployment.http.post(auth["url"] + path, json={"auth_data": auth, "payload": payload})

    return ask


@pytest.mark.parametrize("name", ["worker.py", "dataset_worker.py"])
def test_only_the_import_line_differs(deployment: Deployment, name: str) -> None:
    theirs = (PEER_DIR / name).read_text().splitlines()
    ours = deployment.moved(name).read_text().splitlines()
    differing = [pair for pair in zip(theirs, ours, strict=True) if pair[0] != pair[1]]
    assert [line.split(" import ")[0] for line, _ in differing] == ["from vastai"]
    assert [line.split(" import ")[0] for _, line in differing] == ["from stoker_pyworker"]


SAME = {
    "json": ("/json", {"tokens": 3, "deep": {"list": [1, 2.5, None, "ü"]}}),
    "one queue for the whole worker": ("/queued", {"tokens": 3}),
    "a request parser": ("/parsed", {"prompt": "p", "else": 1}),
    "a response generator that answers whole": ("/counted", {"tokens": 3}),
    "a response generator that streams": ("/framed", {"count": 3}),
    "a remote function": ("/remote/add", {"left": 2, "right": 40}),
    "text": ("/text", {}),
    "bytes": ("/binary", {}),
    "events": ("/events", {"count": 3}),
    "lines": ("/lines", {"count": 3}),
    "a status of the model": ("/json", {"tokens": 1, "fail_with": "418 teapot", "times": 99}),
}


@call("worker-json")
@pytest.mark.parametrize(("path", "payload"), SAME.values(), ids=SAME)
def test_both_workers_answer_the_same(ask: Ask, path: str, payload: Any) -> None:
    theirs, ours = ask("theirs", path, payload), ask("ours", path, payload)
    assert theirs.status_code == ours.status_code
    assert _comparable(theirs) == _comparable(ours)
    assert theirs.headers["content-type"].partition(";")[0] == ours.headers["content-type"].partition(";")[0]


def _comparable(answer: httpx.Response) -> Any:
    try:
        value = answer.json()
    except ValueError:
        return answer.content
    if isinstance(value, dict):
        value.pop("by", None)
    return value


def test_a_parser_that_fails_is_an_error_of_this_request_alone(ask: Ask) -> None:
    assert {ask(worker, "/parsed", {}).status_code for worker in ("theirs", "ours")} <= {422, 500}
    assert ask("ours", "/json", {"tokens": 1}).status_code == 200


@call("worker-json")
@pytest.mark.parametrize("endpoint", ["theirs-dataset", "ours-dataset"])
def test_a_payload_class_sends_a_form_to_the_model(ask: Ask, endpoint: str) -> None:
    content = bytes(range(64))
    answer = ask(endpoint, "/form", {"name": "a.bin", "content": base64.b64encode(content).decode()}, cost=64)
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert got["file"] == ["a.bin", "application/octet-stream", content.hex()]
    assert sorted(map(tuple, got["fields"])) == [
        ("fast", "true"),
        ("note", "a note"),
        ("options", json.dumps({"deep": True})),
        ("tags", "a"),
        ("tags", "b"),
    ]


@pytest.mark.parametrize("endpoint", ["theirs", "ours", "theirs-dataset", "ours-dataset"])
def test_a_benchmark_dataset_and_a_generator_both_measure_the_worker(ready: Ready, endpoint: str) -> None:
    assert ready(endpoint)["measured_perf"] > 0


def test_a_workload_calculator_decides_what_a_request_weighs(ask: Ask, deployment: Deployment) -> None:
    """stoker's worker refuses a workload above its ticket's cost; the official one accepts it."""
    payload = {"tokens": 1000}
    assert ask("theirs", "/json", payload, cost=1).status_code == 200
    assert ask("ours", "/json", payload, cost=1).status_code in {401, 402, 403, 413, 422}
    assert ask("ours", "/json", payload, cost=1000).status_code == 200
