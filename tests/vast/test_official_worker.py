"""The life of an official worker that stoker started from a template: reports, errors, drained, stopped, started,
updated, gone."""

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment, Value, until, worker_processes

NAME = "life"


class Life:
    """The endpoint `life`, whose one worker is the official package's."""

    def __init__(self, deployment: Deployment, number: int) -> None:
        self.deployment = deployment
        self.number = number

    def ready(self) -> dict[str, Any]:
        """The ready worker."""
        return self.deployment.ready(self.number)[0]

    def row(self) -> dict[str, Any]:
        """The worker, in any state."""
        rows = self.deployment.workers(self.number)
        return rows[0] if rows else {"status": "none"}

    def becomes(self, status: str, *, seconds_max: float = 60) -> dict[str, Any]:
        """Wait for a status."""

        def there() -> dict[str, Any]:
            row = self.row()
            return row if row["status"] == status else {}

        return self.waits(there, f"the worker becomes {status}", seconds_max=seconds_max)

    def waits(self, true: Callable[[], Value], what: str, *, seconds_max: float = 60) -> Value:
        """Waits; a timeout prints the endpoint's state."""
        try:
            return until(true, seconds_max=seconds_max, what=what)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.deployment.story(self.number)}") from None

    def process(self, instance_id: int) -> int | None:
        """The pid of an instance's worker."""
        return next(iter(worker_processes(instance_id)), None)

    def route(self, cost: float = 1) -> dict[str, Any]:
        """A route answer that names the worker."""
        asked = {"endpoint": NAME, "cost": cost}

        def given() -> dict[str, Any]:
            answer: dict[str, Any] = self.deployment.api("POST", "/route/", asked)
            return answer if "url" in answer else {}

        return until(given, seconds_max=30, what="a route")

    def request(self, payload: dict[str, Any]) -> httpx.Response:
        """A routed request."""
        auth = self.route()
        return self.deployment.http.post(
            auth["url"] + "/json", json={"auth_data": auth, "payload": payload}, timeout=60
        )

    def change(self, **parameters: Any) -> None:
        """Change the endpoint."""
        self.deployment.api("PUT", f"/api/v0/endptjobs/{self.number}/", parameters)

    def log(self) -> str:
        """The decision log."""
        logs: dict[str, str] = self.deployment.api("POST", "/get_endpoint_logs/", {"id": self.number})
        return logs["info1"]


@pytest.fixture(scope="module")
def life(deployment: Deployment, fleet: dict[str, int]) -> Life:
    return Life(deployment, fleet[NAME])


@call("worker-status", "pubkey")
def test_it_becomes_ready_by_its_own_reports(life: Life) -> None:
    row = life.ready()
    assert row["measured_perf"] > 0
    assert "is ready" in life.log()
    env = life.deployment.environment_of(row["id"])
    assert env["MASTER_TOKEN"].startswith(f"{life.number}.{row['launch_id']}.")
    assert env["REPORT_ADDR"].startswith(life.deployment.engine)


@call("worker-status", "delete-requests")
def test_its_reports_say_what_it_holds_and_when_that_has_ended(life: Life) -> None:
    life.ready()
    asked = threading.Thread(target=life.request, args=({"tokens": 5, "seconds": 2.5},))
    asked.start()
    until(lambda: life.row()["reqs_working"] == 1, seconds_max=10, what="the request is reported as held")
    asked.join()
    until(
        lambda: (life.row()["reqs_working"], life.row()["tickets_open"]) == (0, 0),
        seconds_max=15,
        what="the request is reported as ended",
    )


@call("pyworker-update")
def test_its_update_route_takes_only_its_own_token(life: Life) -> None:
    row = life.ready()
    wrong = {"Authorization": "Bearer wrong"}
    assert life.deployment.http.post(f"{row['url']}/pyworker/update", headers=wrong).status_code == 401


@call("worker-status")
def test_an_error_in_its_models_log_takes_it_out_until_it_has_recovered(life: Life) -> None:
    row = life.ready()
    host, _, port = row["url"].rpartition(":")
    life.deployment.http.post(f"{host}:{int(port) + 2}/say", content=b"model failed: out of memory")
    until(lambda: life.row()["status"] != "idle", seconds_max=30, what="the error is seen")
    recovered = life.ready()
    assert life.request({"tokens": 1}).status_code == 200
    assert "model failed" in life.log()
    assert recovered["error_msg"] == ""


def holds(row: dict[str, Any]) -> bool:
    """Whether the worker has a request: by its own report, which may be late, or by an open ticket."""
    return int(row["reqs_working"]) + int(row["tickets_open"]) > 0


def test_it_is_drained_before_it_is_stopped_and_the_same_instance_starts_again(life: Life) -> None:
    row = life.ready()
    answers: list[httpx.Response] = []
    asked = threading.Thread(target=lambda: answers.append(life.request({"tokens": 5, "seconds": 6})))
    asked.start()
    until(lambda: holds(life.row()), seconds_max=10, what="the request is held")
    life.change(endpoint_state="stopped")
    life.becomes("stopped")
    asked.join()
    assert [answer.status_code for answer in answers] == [200]
    instance = life.deployment.instance(row["id"])
    assert instance is not None
    assert instance["actual_status"] in {"stopped", "exited"}
    life.change(endpoint_state="active")
    assert life.becomes("idle")["id"] == row["id"]
    assert life.request({"tokens": 1}).status_code == 200


@call("update-workers", "cli-update-workers")
@call(
    "pyworker-update",
    differs="stoker applies the template to the instance again and reboots it, so that a changed template takes effect too",
)
def test_a_rolling_update_restarts_it_on_the_same_instance(life: Life) -> None:
    row = life.ready()
    # Half a worker's load is kept hot, and another worker may serve it meanwhile.
    life.change(max_workers=2, min_load=row["measured_perf"] / 2)
    rows = life.deployment.api("GET", "/api/v0/workergroups/")["results"]
    group = next(each for each in rows if each["endpoint_id"] == life.number)
    before = life.process(row["id"])
    printed = life.deployment.vastai("update", "workers", str(group["id"]))
    assert "Update started" in printed.out, printed

    def updated() -> bool:
        rows = [each for each in life.deployment.workers(life.number) if each["id"] == row["id"]]
        return [each["status"] for each in rows] == ["idle"] and life.process(row["id"]) not in {before, None}

    life.waits(updated, "the same instance runs and is ready, with a new process")
    assert "rolling update to revision 2" in life.log()
    assert life.request({"tokens": 1}).status_code == 200


def test_deleting_the_endpoint_leaves_no_instance(life: Life) -> None:
    row = life.ready()
    life.deployment.api("DELETE", f"/api/v0/endptjobs/{life.number}/")
    until(
        lambda: life.deployment.instance(row["id"]) is None, seconds_max=30, what="the instance is destroyed"
    )
    with pytest.raises(httpx.ConnectError):
        life.deployment.http.get(row["url"])


@call("route-again")
def test_a_request_that_comes_again_at_once_is_sent_elsewhere_or_has_to_wait(
    deployment: Deployment, fleet: dict[str, int]
) -> None:
    deployment.ready(fleet["pair"])
    asked = {"endpoint": "pair", "cost": 1}
    given = until(lambda: _with_url(deployment.api("POST", "/route/", asked)), seconds_max=30, what="a route")
    again = asked | {"request_idx": given["request_idx"]}
    first = deployment.api("POST", "/route/", again)
    assert first.get("url") != given["url"]
    answers = [first, *(deployment.api("POST", "/route/", again) for _ in range(2))]
    assert all(answer["request_idx"] == given["request_idx"] for answer in answers)
    assert any("url" not in answer for answer in answers), "the hot loop of re-routes is never made to pause"


@call("worker-gone", "route-again", "worker-retry")
def test_a_worker_that_dies_costs_no_request(deployment: Deployment, fleet: dict[str, int]) -> None:
    """The official client's requests go on while one of two workers is killed: dropped and refused ones are routed
    again."""
    workers = deployment.ready(fleet["pair"], 2)
    client = deployment.begin("burst.py", endpoint="pair", requests=40, at_once=6, seconds=0.4)
    with client:
        assert client.stdout is not None
        begun = json.loads(client.stdout.readline())
        assert begun["case"] == "begun", begun
        for pid in worker_processes(workers[0]["id"]):
            os.kill(pid, signal.SIGKILL)
        burst = json.loads(client.stdout.readline())
        assert client.wait(30) == 0
    assert burst["ok"], burst["trace"]
    assert burst["value"]["statuses"] == {"200": 40}


@call("debug-worker", differs="both workers refuse what was not routed: there is no signature and no ticket")
@pytest.mark.parametrize("worker", ["theirs", "ours"])
def test_a_client_that_skips_routing_is_refused(
    deployment: Deployment, ready: Callable[[str], dict[str, Any]], worker: str
) -> None:
    url = ready(worker)["url"]
    body = {"auth_data": {"request_idx": 1, "url": url}, "session_id": None, "payload": {"tokens": 1}}
    assert deployment.http.post(f"{url}/json", json=body).status_code in {401, 422}


def _with_url(answer: dict[str, Any]) -> dict[str, Any]:
    return answer if "url" in answer else {}
