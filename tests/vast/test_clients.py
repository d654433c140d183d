"""The official async client, against workers of both kinds: every case of `peer/client.py`, once per kind."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.vast.conftest import WORKERS
from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment

CASES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "an_unknown_endpoint_is_named_as_such": (
        "Endpoint no-such-endpoint could not be found",
        ("endpoints-list",),
    ),
    "text_comes_as_text": (["plain words", "text/plain"], ("route", "worker-text")),
    "bytes_come_as_bytes": ([True, "application/octet-stream"], ("route", "worker-bytes")),
    "server_sent_events_stream": ([0, 1, 2, 3], ("route", "worker-sse")),
    "json_lines_stream": ([0, 1, 2, 3], ("route", "worker-jsonl")),
    "a_cost_of_zero_is_routed": (True, ("route",)),
    "thirty_at_once_are_all_answered": (list(range(30)), ("route", "worker-json")),
    "a_route_the_worker_does_not_have_is_a_404": ([False, 404], ("worker-4xx",)),
    "a_500_of_the_model_is_retried": ([True, 200], ("route-again", "worker-retry")),
    "a_429_of_the_model_is_retried": ([True, 200], ("route-again", "worker-retry")),
    "without_retry_a_503_is_returned": ([False, 503, {"said": "no"}], ("worker-retry",)),
    "retries_are_bounded_by_max_retries": ([False, 502], ("route-again", "worker-retry")),
    "a_400_of_the_model_is_not_retried": ([False, 400, {"said": "no"}], ("worker-4xx",)),
    "a_worker_timeout_is_routed_again": ("Timed out", ("route-again", "worker-timeout")),
    "a_request_can_be_cancelled": ("Cancelled", ("worker-cancel",)),
    "a_session_keeps_its_worker": (
        {"urls": 1, "open": True, "lifetime": 30, "after": False},
        ("session-create", "session-request", "session-get", "session-end"),
    ),
    "a_session_ends_with_a_call_to_the_model": ([True], ("session-end", "session-on-close")),
    "a_session_expires": (
        ["Cannot make request on closed session.", False],
        ("session-expiry", "session-health"),
    ),
    "coroutines_do_the_same": (
        {"200": 5, "in session": 200, "events": 3},
        ("route", "worker-json", "worker-sse", "session-request"),
    ),
    "a_managed_endpoint_lives_and_dies": (
        {
            "name": True,
            "cold_workers": 0,
            "key": True,
            "group": True,
            "rolled": {"success": True, "workers_to_update": 0},
        },
        (
            "endpoint-create",
            "endpoint-show",
            "endpoint-delete",
            "groups-list",
            "group-create",
            "group-delete",
            "update-workers",
        ),
    ),
}

Cases = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def seen(deployment: Deployment, ready: Callable[[str], dict[str, Any]]) -> Cases:
    """The client's results for an endpoint, by case."""

    @functools.cache
    def seen(worker: str) -> dict[str, Any]:
        ready(worker)
        return deployment.script("client.py", endpoint=worker, template="ours")

    return seen


def value_of(line: dict[str, Any]) -> Any:
    """A case's result, or its traceback."""
    assert line["ok"], line["trace"]
    return line["value"]


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize(
    ("case", "expected"),
    [pytest.param(case, expected, marks=call(*calls), id=case) for case, (expected, calls) in CASES.items()],
)
def test_the_official_client_sees_that(seen: Cases, worker: str, case: str, expected: Any) -> None:
    assert value_of(seen(worker)[case]) == expected


@call("endpoints-list")
@pytest.mark.parametrize("worker", WORKERS)
def test_endpoints_are_found_by_name_and_bring_their_own_key(
    seen: Cases, fleet: dict[str, int], worker: str
) -> None:
    found = value_of(seen(worker)["endpoints_are_found_by_name"])
    assert set(fleet) <= set(found["names"])
    assert (found["id"], found["keyed"]) == (fleet[worker], "sk-ep-")


@call("route", "worker-json")
@pytest.mark.parametrize("worker", WORKERS)
def test_an_answer_has_all_that_the_official_client_makes_of_it(seen: Cases, worker: str) -> None:
    answer = value_of(seen(worker)["json_in_and_out"])
    assert answer == {
        "echo": {"tokens": 7},
        "ok": True,
        "status": 200,
        "latency": True,
        "request_idx": True,
        "tracker": "Complete",
    }


@call("worker-cancel")
def test_a_stream_that_is_left_stops_the_model_behind_stokers_worker(
    seen: Cases, deployment: Deployment
) -> None:
    left = value_of(seen("ours")["a_stream_can_be_left_in_its_middle"])
    assert left["got"] == 3
    host, _, port = left["url"].rpartition(":")
    saw = deployment.http.get(f"{host}:{int(port) + 2}/seen").json()
    assert left["name"] in saw["cancelled"]


@call(
    "worker-cancel",
    differs="behind the official worker the model generates to the end; behind stoker's it stops",
)
def test_a_stream_that_is_left_is_over_for_the_client_of_the_official_worker(seen: Cases) -> None:
    assert value_of(seen("theirs")["a_stream_can_be_left_in_its_middle"])["got"] == 3


@call("endpoint-workers")
@pytest.mark.parametrize("worker", WORKERS)
def test_workers_are_listed_by_their_instance_and_with_their_measured_perf(
    seen: Cases, ready: Callable[[str], dict[str, Any]], worker: str
) -> None:
    (row,) = value_of(seen(worker)["the_workers_are_listed"])
    assert row["id"] == ready(worker)["id"]
    assert row["status"] == "idle"
    assert row["perf"] > 0


def test_every_case_of_the_client_is_judged(seen: Cases) -> None:
    judged = set(CASES) | {
        "endpoints_are_found_by_name",
        "json_in_and_out",
        "a_stream_can_be_left_in_its_middle",
        "the_workers_are_listed",
    }
    assert set(seen("ours")) == judged
