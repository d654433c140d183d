"""The official synchronous SDK (`VastAI`): console, engine and marketplace, every case of `peer/console.py`."""

from typing import Any

import pytest

from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment

LEVELS = ["debug", "info0", "info1", "trace"]
DEFAULTS = "verified=True rentable=True rented=False"


@pytest.fixture(scope="session")
def seen(deployment: Deployment, fleet: dict[str, int]) -> dict[str, Any]:
    lines = deployment.script("console.py", template="ours", market_key=deployment.market_key)
    assert all(line["ok"] for line in lines.values()), [line for line in lines.values() if not line["ok"]]
    return {name: line["value"] for name, line in lines.items()}


@call(
    "endpoint-create",
    "endpoints-list",
    "endpoint-update",
    "endpoint-delete",
    "endpoint-logs",
    "endpoint-workers",
    "groups-list",
    "group-create",
    "group-update",
    "group-delete",
    "group-logs",
    "update-workers",
)
def test_an_endpoint_and_its_workergroup_live_and_die(seen: dict[str, Any]) -> None:
    assert seen["an_endpoint_lives_and_dies"] == {
        "created": True,
        "shown": [True, False, 0.9],
        "changed": [True, 0.5],
        "group": [True, True, f"num_gpus=1 {DEFAULTS}"],
        "regrouped": [True, f"num_gpus>=1 {DEFAULTS}", 1.0],
        "logs": [LEVELS, True, LEVELS],
        "rolled": True,
        "workers": [],
        "deleted": [True, True],
    }


@call("errors")
def test_an_unknown_endpoint_is_a_404_with_a_message(seen: dict[str, Any]) -> None:
    assert seen["an_unknown_endpoint_is_an_error"] == [404, False, True]


@call("errors")
def test_a_wrong_key_is_a_401(seen: dict[str, Any]) -> None:
    assert seen["a_wrong_key_is_refused"] == 401


@call("bundles", "search-asks", "templates")
def test_offers_and_templates_are_found(seen: dict[str, Any]) -> None:
    assert seen["the_marketplace_is_searched"] == {
        "offers": True,
        "kind": "CPU_S",
        "narrow": [],
        "asks": True,
        "templates": ["ours"],
    }


@call(
    "asks-create",
    "instance-show",
    "instances-list",
    "instance-state",
    "instance-reboot",
    "instance-logs",
    "instance-destroy",
)
def test_an_instance_lives_and_dies(seen: dict[str, Any]) -> None:
    assert seen["an_instance_lives_and_dies"] == {
        "made": True,
        "label": ["by-hand", "other"],
        "env": "b",
        "listed": True,
        "answers": [True] * 5,
        "logs": True,
        "gone": True,
    }


@call("instance-bid", "instance-recycle", "instance-template", "instances-bulk")
def test_an_interruptible_instance_is_bid_for_and_made_anew(seen: dict[str, Any]) -> None:
    assert seen["an_interruptible_instance"] == {
        "is_bid": True,
        "answers": [True] * 5,
        "template": "ours",
        "gone": True,
    }


@call("asks-bulk", not_offered="stoker rents one machine at a time, each with a label of its own")
def test_the_host_marketplace_does_not_create_in_bulk(deployment: Deployment) -> None:
    assert _status(deployment, "POST", "/api/v0/asks/bulk/") == 404


@call("launch-instance", not_offered="choosing and creating are two steps, with a decision between them")
def test_the_host_marketplace_does_not_choose_and_create_in_one_call(deployment: Deployment) -> None:
    assert _status(deployment, "PUT", "/api/v0/launch_instance/") == 404


def _status(deployment: Deployment, method: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {deployment.market_key}"}
    return deployment.http.request(method, deployment.market + path, json={}, headers=headers).status_code


@call("user")
def test_the_account_is_answered_with_and_without_a_slash(deployment: Deployment) -> None:
    for path in ("/api/v0/users/current", "/api/v0/users/current/"):
        assert deployment.api("GET", path)["username"] == "default"


@call(
    "docker-login",
    not_offered="a registry's password would lie in a workflow's history; it belongs in the template",
)
def test_a_registry_login_in_a_workergroup_is_refused_with_a_reason(
    deployment: Deployment, fleet: dict[str, int]
) -> None:
    answer = deployment.http.post(
        f"{deployment.engine}/api/v0/workergroups/",
        json={"endpoint_id": fleet["ours"], "template_hash": "ours", "docker_login_pass": "p"},
        headers={"Authorization": f"Bearer {deployment.key}"},
    )
    assert answer.status_code == 400
    assert "docker_login_pass" in answer.json()["msg"]
    assert "'p'" not in answer.text


@call("route-wait")
def test_without_a_worker_a_route_call_is_answered_200_within_the_clients_ten_seconds(
    deployment: Deployment,
) -> None:
    number = deployment.api(
        "POST",
        "/api/v0/endptjobs/",
        {"endpoint_name": "nobody", "max_workers": 0, "cold_workers": 0, "min_load": 0},
    )["result"]
    asked = {"endpoint": "nobody", "cost": 5, "request_idx": 0, "replay_timeout": 60.0}
    body = asked | {"api_key": deployment.key}
    answer = deployment.http.post(f"{deployment.engine}/route/", json=body, timeout=10)
    assert answer.status_code == 200
    said = answer.json()
    assert "url" not in said
    assert said["endpoint"] == "nobody"
    assert said["request_idx"] >= 1
    assert said["status"]
    deployment.api("DELETE", f"/api/v0/endptjobs/{number}/")
