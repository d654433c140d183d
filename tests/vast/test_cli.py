"""The official command line against the console and engine of one origin, and against the host marketplace."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment, until

LEVELS = ("info0", "info1", "trace", "debug")


@pytest.fixture(scope="module")
def mine(deployment: Deployment) -> int:
    """An endpoint made by the command line."""
    printed = deployment.vastai(
        "create", "endpoint", "--endpoint_name", "by-cli", "--cold_workers", "0", "--max_workers", "0"
    )
    match = re.search(r"'success': True, 'result': (\d+)", printed.out)
    assert match, printed
    return int(match[1])


@call("cli-create-endpoint", "cli-show-endpoints", "endpoint-create", "endpoints-list")
def test_a_created_endpoint_is_shown_with_the_command_lines_defaults_and_without_its_key(
    deployment: Deployment, mine: int
) -> None:
    shown = {row["id"]: row for row in deployment.vastai("show", "endpoints", "--raw").json}
    assert shown[mine]["endpoint_name"] == "by-cli"
    assert (shown[mine]["cold_mult"], shown[mine]["target_util"], shown[mine]["max_queue_time"]) == (
        2.5,
        0.9,
        30,
    )
    assert "api_key" not in shown[mine]


@call("cli-update-endpoint", "endpoint-update")
def test_an_update_changes_what_is_given_and_nothing_else(deployment: Deployment, mine: int) -> None:
    printed = deployment.vastai("update", "endpoint", str(mine), "--target_queue_time", "4")
    assert "'success': True" in printed.out, printed
    row = next(row for row in deployment.vastai("show", "endpoints", "--raw").json if row["id"] == mine)
    assert (row["target_queue_time"], row["cold_mult"], row["max_workers"]) == (4, 2.5, 0)


@call("cli-create-workergroup", "cli-show-workergroups", "cli-update-workergroup", "cli-delete-workergroup")
def test_a_workergroup_lives_and_dies(deployment: Deployment, mine: int) -> None:
    made = deployment.vastai(
        *("create", "workergroup", "--endpoint_id", str(mine), "--template_hash", "ours"),
        *("--search_params", "num_gpus=1", "--gpu_ram", "3", "--launch_args", "--disk 4"),
    )
    match = re.search(r"'success': True, 'id': (\d+)", made.out)
    assert match, made
    number = match[1]
    changed = deployment.vastai("update", "workergroup", number, "--search_params", "num_gpus>=1", "-n")
    assert "'success': True" in changed.out, changed
    rows = deployment.vastai("show", "workergroups", "--raw").json
    row = next(row for row in rows if row["id"] == int(number))
    assert (row["search_params"], row["gpu_ram"], row["launch_args"]) == ("num_gpus>=1", 3, "--disk 4")
    deleted = deployment.vastai("delete", "workergroup", number)
    assert "'success': True" in deleted.out, deleted


@call("cli-endpt-workers", "endpoint-workers")
def test_workers_are_listed_with_status_and_perf(
    deployment: Deployment, fleet: dict[str, int], ready: Callable[[str], dict[str, Any]]
) -> None:
    worker = ready("theirs")
    printed = deployment.vastai("get", "endpt-workers", str(fleet["theirs"]))
    assert re.search(rf"id={worker['id']} status=idle gpu_name=CPU_S measured_perf=\d", printed.out), printed


@call("cli-endpt-logs", "endpoint-logs")
def test_every_log_level_of_an_endpoint_holds_the_ones_above_it(
    deployment: Deployment, fleet: dict[str, int], ready: Callable[[str], dict[str, Any]]
) -> None:
    ready("theirs")
    _levels(deployment, "endpt-logs", fleet["theirs"])


@call("cli-wrkgrp-logs", "group-logs")
def test_every_log_level_of_a_workergroup_holds_the_ones_above_it(
    deployment: Deployment, fleet: dict[str, int], ready: Callable[[str], dict[str, Any]]
) -> None:
    ready("theirs")
    rows = deployment.api("GET", "/api/v0/autojobs/")["results"]
    group = next(row["id"] for row in rows if row["endpoint_id"] == fleet["theirs"])
    _levels(deployment, "wrkgrp-logs", group)


def _levels(deployment: Deployment, command: str, number: int) -> None:
    texts = [deployment.vastai("get", command, str(number), "--level", str(level)).out for level in range(4)]
    assert "recruit" in texts[0]
    assert "is ready" in texts[1]
    for less, more in itertools.pairwise(texts):
        assert set(less.splitlines()) <= set(more.splitlines())


@call("group-logs", "group-workers")
@pytest.mark.parametrize("spelling", ["autogroup", "workergroup"])
def test_both_spellings_of_a_workergroup_are_served(
    deployment: Deployment, fleet: dict[str, int], ready: Callable[[str], dict[str, Any]], spelling: str
) -> None:
    worker = ready("theirs")
    rows = deployment.api("GET", "/api/v0/workergroups/")["results"]
    group = next(row["id"] for row in rows if row["endpoint_id"] == fleet["theirs"])
    workers = deployment.api("POST", f"/get_{spelling}_workers/", {"id": group})
    assert [row["id"] for row in workers] == [worker["id"]]
    assert set(deployment.api("POST", f"/get_{spelling}_logs/", {"id": group, "tail": 5})) == set(LEVELS)


@call("cli-search", "bundles", "templates")
def test_offers_and_templates_are_searched(deployment: Deployment) -> None:
    asked = {"url": deployment.market, "key": deployment.market_key}
    offers = deployment.vastai("search", "offers", "num_gpus=1 dph<1", "-o", "dph", "--raw", **asked).json
    assert {offer["gpu_name"] for offer in offers} == {"CPU_S"}
    templates = deployment.vastai("search", "templates", "hash_id=theirs", "--raw", **asked).json
    assert [template["name"] for template in templates] == ["theirs"]


@call("cli-instances", "instance-show", "instances-list")
def test_instances_are_shown_with_the_labels_that_stoker_gave_them(
    deployment: Deployment, ready: Callable[[str], dict[str, Any]]
) -> None:
    worker = ready("theirs")
    asked = {"url": deployment.market, "key": deployment.market_key}
    rows = deployment.vastai("show", "instances", "--raw", **asked).json
    labels = {row["id"]: row["label"] for row in rows}
    identity = deployment.stack.deployment
    assert labels[worker["id"]] == f"stoker:{identity}:theirs:{worker['launch_id']}"
    one = deployment.vastai("show", "instance", str(worker["id"]), "--raw", **asked).json
    assert one["actual_status"] == "running"


@call("errors")
def test_an_error_is_printed_as_a_sentence(deployment: Deployment) -> None:
    printed = deployment.vastai("delete", "workergroup", "4242")
    assert "Failed with error 404: there is no workergroup 4242" in printed.err
    wrong = deployment.vastai("show", "endpoints", key="nobodys-key-at-all")
    assert "Failed with error 401" in wrong.err


@call("cli-delete-endpoint", "endpoint-delete")
def test_a_deleted_endpoint_is_gone(deployment: Deployment, mine: int) -> None:
    assert "'success': True" in deployment.vastai("delete", "endpoint", str(mine)).out
    again = deployment.vastai("delete", "endpoint", str(mine))
    rows = deployment.vastai("show", "endpoints", "--raw").json
    left = [row for row in rows if row["id"] == mine and row["endpoint_state"] != "deleting"]
    assert "404" in again.err or not left


@call("update-workers-cancel", "cli-update-workers")
def test_a_rolling_update_is_begun_and_cancelled(deployment: Deployment, fleet: dict[str, int]) -> None:
    number = fleet["theirs-dataset"]
    deployment.ready(number)
    rows = deployment.api("GET", "/api/v0/workergroups/")["results"]
    group = next(row["id"] for row in rows if row["endpoint_id"] == number)
    assert f"Update started for workergroup {group}" in deployment.vastai("update", "workers", str(group)).out
    cancelled = deployment.vastai("update", "workers", str(group), "--cancel")
    assert f"Update cancelled for workergroup {group}" in cancelled.out, cancelled
    deployment.ready(number)
    until(
        lambda: not any(row["update_pending"] for row in deployment.workers(number)),
        seconds_max=60,
        what="no update is pending",
    )
