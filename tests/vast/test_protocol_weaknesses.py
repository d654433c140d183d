"""Weaknesses of the official protocol: which are closed, and which remain for the official worker.

`docs/security.md` has the same as a table, with the names of these tests.
"""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from stoker_wire.security.ticket import Ticket, sign_ticket
from stoker_wire.security.token import mint_worker_token, ticket_key
from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment, until

Ready = Callable[[str], dict[str, Any]]


class Attacker:
    """An attacker with a route answer or with a worker."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.http = deployment.http

    def route(self, endpoint: str, cost: float = 10) -> dict[str, Any]:
        """A genuine route answer."""

        def given() -> dict[str, Any]:
            answer: dict[str, Any] = self.deployment.api(
                "POST", "/route/", {"endpoint": endpoint, "cost": cost}
            )
            return answer if "url" in answer else {}

        return until(given, seconds_max=30, what="a route")

    def use(self, auth: dict[str, Any], url: str | None = None, payload: dict[str, Any] | None = None) -> int:
        """The status when a route answer is used, perhaps at another worker."""
        body = {"auth_data": auth, "payload": payload or {"tokens": 1}}
        return self.http.post(f"{url or auth['url']}/json", json=body).status_code

    def report(self, worker: dict[str, Any], token: str, **changes: Any) -> httpx.Response:
        """Sends a worker's report; `path` is the worker's own unless given."""
        environment = self.deployment.environment_of(worker["id"])
        address = changes.pop("address", environment["REPORT_ADDR"])
        body = {
            "id": worker["id"],
            "mtoken": token,
            "version": "1.1.0",
            "loadtime": 3.0,
            "max_perf": worker["measured_perf"],
            "url": worker["url"],
        }
        return self.http.post(f"{address}/worker_status/", json=body | changes)

    def token(self, worker: dict[str, Any]) -> str:
        """The worker's own token: what its host can read."""
        return self.deployment.environment_of(worker["id"])["MASTER_TOKEN"]


@pytest.fixture
def attacker(deployment: Deployment) -> Attacker:
    return Attacker(deployment)


# -- a stolen route answer


@pytest.mark.parametrize("other", ["theirs-dataset", "ours"])
def test_a_route_answer_for_one_worker_opens_no_other(attacker: Attacker, ready: Ready, other: str) -> None:
    ready("theirs")
    auth = attacker.route("theirs")
    assert attacker.use(auth) == 200
    assert attacker.use(auth, ready(other)["url"]) == 401


def test_every_launch_has_a_signing_key_of_its_own(deployment: Deployment, ready: Ready) -> None:
    addresses = [
        deployment.environment_of(ready(name)["id"])["REPORT_ADDR"] for name in ("theirs", "theirs-dataset")
    ]
    keys = [deployment.http.get(f"{address}/pubkey/").text for address in addresses]
    assert len(set(addresses)) == len(set(keys)) == 2
    assert all(key.startswith("-----BEGIN PUBLIC KEY-----") for key in keys)
    assert keys == [deployment.http.get(f"{address}/pubkey/").text for address in addresses]


def test_a_made_up_key_path_has_no_key(deployment: Deployment, ready: Ready) -> None:
    address = deployment.environment_of(ready("theirs")["id"])["REPORT_ADDR"]
    head, _, sealed = address.rpartition("/")
    for wrong in (f"{head}/{'A' * len(sealed)}", f"{head}x/{sealed}", f"{head}/{sealed[:-4]}AAAA"):
        assert deployment.http.get(f"{wrong}/pubkey/").status_code == 404


def test_stokers_worker_takes_a_ticket_once(attacker: Attacker, ready: Ready) -> None:
    ready("ours")
    auth = attacker.route("ours")
    assert [attacker.use(auth) for _ in range(3)] == [200, 401, 401]


def test_the_official_worker_takes_a_route_answer_again_and_again(attacker: Attacker, ready: Ready) -> None:
    """The official signature covers the url alone and does not expire."""
    ready("theirs")
    auth = attacker.route("theirs")
    assert [attacker.use(auth) for _ in range(3)] == [200, 200, 200]


def test_stokers_worker_refuses_a_cost_that_was_not_routed(attacker: Attacker, ready: Ready) -> None:
    ready("ours")
    auth = attacker.route("ours", cost=1)
    assert attacker.use(auth | {"cost": 1000}, payload={"tokens": 1000}) in {401, 402, 403, 422}


def test_stokers_worker_refuses_a_ticket_that_was_made_without_its_key(
    attacker: Attacker, ready: Ready, deployment: Deployment
) -> None:
    worker = ready("ours")
    auth = attacker.route("ours")
    key = ticket_key(mint_worker_token(b"a secret that is not theirs", 1, worker["launch_id"]))
    forged = Ticket(e="ours", w=worker["launch_id"], c=1e6, r=1, n=1, x=time.time() + 60)
    assert attacker.use(auth | {"ticket": sign_ticket(forged, key)}) == 401
    assert attacker.use({name: value for name, value in auth.items() if name != "ticket"}) == 401


# -- sessions


def _create(attacker: Attacker, url: str, auth: dict[str, Any], **payload: Any) -> httpx.Response:
    return attacker.http.post(f"{url}/session/create", json={"auth_data": auth, "payload": payload})


@call("session-create", differs="stoker's worker demands a valid ticket; the official one checks nothing")
def test_stokers_worker_opens_no_session_without_a_ticket(attacker: Attacker, ready: Ready) -> None:
    worker = ready("ours")
    forged = {
        "url": worker["url"],
        "cost": 1,
        "endpoint": "ours",
        "reqnum": 1,
        "request_idx": 1,
        "signature": "",
    }
    assert _create(attacker, worker["url"], forged, lifetime=5).status_code == 401
    honest = attacker.route("ours", cost=1)
    opened = _create(attacker, worker["url"], honest, lifetime=5)
    assert opened.status_code == 201
    assert _create(attacker, worker["url"], honest, lifetime=5).status_code == 401
    ended = {"session_id": opened.json()["session_id"], "session_auth": honest}
    assert attacker.http.post(f"{worker['url']}/session/end", json=ended).status_code == 200


@call("session-on-close", differs="stoker's worker calls its own routes alone; the official one any address")
@pytest.mark.parametrize("route", ["http://169.254.169.254/latest", "//elsewhere/path", "closed", "/health"])
def test_stokers_worker_calls_only_its_own_routes_when_a_session_closes(
    attacker: Attacker, ready: Ready, route: str
) -> None:
    worker = ready("ours")
    auth = attacker.route("ours", cost=1)
    assert _create(attacker, worker["url"], auth, lifetime=5, on_close_route=route).status_code == 422


def test_a_session_is_not_prolonged_by_who_did_not_open_it(attacker: Attacker, ready: Ready) -> None:
    worker = ready("ours")
    auth = attacker.route("ours", cost=1)
    opened = _create(attacker, worker["url"], auth, lifetime=20).json()
    stranger = auth | {"ticket": "forged"}
    body = {"auth_data": stranger, "session_id": opened["session_id"], "payload": {"tokens": 1}}
    assert [attacker.http.post(f"{worker['url']}/json", json=body).status_code for _ in range(3)] == [401] * 3
    naming = {"session_id": opened["session_id"], "session_auth": auth}
    record = attacker.http.post(f"{worker['url']}/session/get", json=naming).json()
    assert record["expiration"] == opened["expiration"]
    assert attacker.http.post(f"{worker['url']}/session/end", json=naming).status_code == 200


# -- false reports


@call("worker-status")
def test_a_report_with_another_workers_token_or_none_is_refused(attacker: Attacker, ready: Ready) -> None:
    worker, other = ready("theirs"), ready("theirs-dataset")
    assert attacker.report(worker, "").status_code == 401
    assert attacker.report(worker, attacker.token(worker)[:-1] + "0x").status_code == 401
    assert attacker.report(worker, attacker.token(other)).status_code in {401, 403}


@call("worker-status")
def test_a_report_for_another_instance_is_refused(attacker: Attacker, ready: Ready) -> None:
    worker, other = ready("theirs"), ready("theirs-dataset")
    assert attacker.report(worker, attacker.token(worker), id=other["id"]).status_code == 403


@call("worker-status")
def test_a_report_on_another_workers_path_is_refused(
    attacker: Attacker, ready: Ready, deployment: Deployment
) -> None:
    worker, other = ready("theirs"), ready("theirs-dataset")
    elsewhere = deployment.environment_of(other["id"])["REPORT_ADDR"]
    assert attacker.report(worker, attacker.token(worker), address=elsewhere).status_code == 403


@call("worker-status", differs="the reported url has to be at the address that the marketplace knows")
@pytest.mark.parametrize(
    "url", ["http://10.1.2.3:3000", "http://127.0.0.1:9", "http://u:p@127.0.0.1:1/x", "file:///etc/passwd"]
)
def test_a_worker_cannot_send_clients_elsewhere(
    attacker: Attacker, ready: Ready, deployment: Deployment, url: str
) -> None:
    worker = ready("theirs-tls")  # it could get its certificate only once its address was known
    assert attacker.report(worker, attacker.token(worker), url=url).status_code in {400, 403}
    assert attacker.route("theirs-tls")["url"] == worker["url"]


@call("worker-status")
def test_absurd_figures_are_refused(attacker: Attacker, ready: Ready) -> None:
    worker = ready("theirs")
    token = attacker.token(worker)
    for change in ({"max_perf": 1e300}, {"cur_load": -1}, {"max_perf": "NaN"}, {"loadtime": 1e30}):
        assert attacker.report(worker, token, **change).status_code == 400, change


@call("delete-requests")
def test_reports_about_requests_that_it_was_not_given_change_nothing(
    attacker: Attacker, ready: Ready, deployment: Deployment
) -> None:
    worker = ready("theirs")
    address = deployment.environment_of(worker["id"])["REPORT_ADDR"]
    other = attacker.route("theirs-dataset")
    strangers = [
        {"request_idx": idx, "success": False, "status": "Error"} for idx in (1, other["request_idx"])
    ]
    body = {"worker_id": worker["id"], "mtoken": attacker.token(worker), "requests": strangers}
    answer = deployment.http.post(f"{address}/delete_requests/", json=body)
    assert answer.json() == {"success": True, "known": 0}
    assert attacker.use(other, payload={"seconds": 0}) == 200


# -- keys


def test_an_endpoint_key_only_routes_and_only_its_own_endpoint(deployment: Deployment, ready: Ready) -> None:
    ready("theirs")
    rows = deployment.api("GET", "/api/v0/endptjobs/")["results"]
    key = next(row["api_key"] for row in rows if row["endpoint_name"] == "theirs")
    headers = {"Authorization": f"Bearer {key}"}
    get = deployment.http.get(f"{deployment.engine}/api/v0/endptjobs/", headers=headers)
    workers = deployment.http.post(
        f"{deployment.engine}/get_endpoint_workers/", json={"id": rows[0]["id"]}, headers=headers
    )
    assert (get.status_code, workers.status_code) == (401, 401)
    mine = deployment.http.post(f"{deployment.engine}/route/", json={"endpoint": "theirs"}, headers=headers)
    other = deployment.http.post(f"{deployment.engine}/route/", json={"endpoint": "ours"}, headers=headers)
    assert mine.status_code == 200
    assert other.status_code in {401, 404}


def test_a_rotated_endpoint_key_is_dead_at_once(deployment: Deployment) -> None:
    wanted = {"endpoint_name": "rotated", "max_workers": 0, "cold_workers": 0, "min_load": 0}
    number = deployment.api("POST", "/api/v0/endptjobs/", wanted)["result"]
    old = deployment.api("GET", f"/api/v0/endptjobs/{number}/")["result"]["api_key"]
    new = deployment.api("POST", f"/api/v0/endptjobs/{number}/rotate_key/")["api_key"]

    def route(key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{deployment.engine}/route/"
        return deployment.http.post(url, json={"endpoint": "rotated"}, headers=headers, timeout=1.5)

    assert route(old).status_code == 401
    with pytest.raises(httpx.ReadTimeout):  # the call is accepted and held, because there is no worker
        route(new)
    deployment.api("DELETE", f"/api/v0/endptjobs/{number}/")


def test_no_secret_is_in_any_log(deployment: Deployment, attacker: Attacker, ready: Ready) -> None:
    """After everything above: neither keys nor tokens are in what the deployment's processes wrote."""
    tokens = [attacker.token(ready(name)) for name in ("theirs", "ours")]
    assert deployment.stack.keys is not None
    secrets = [deployment.key, deployment.market_key, deployment.stack.keys.secret.decode(), *tokens]
    for path in sorted((deployment.settings.state_dir / "logs").glob("*.log")):
        text = path.read_text(errors="replace")
        assert not [number for number, secret in enumerate(secrets) if secret in text], path.name
