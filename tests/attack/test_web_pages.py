"""Requests that a web page on this machine can send change nothing and read nothing."""

import asyncio
import json

import pytest

from run.processes.temporal_ui import BLOCKED_PORTS
from tests.attack.conftest import KEY, problem_in
from tests.attack.pages import (
    BATCH_BODY,
    BATCH_PATH,
    SIGNAL_BODY,
    SIGNAL_PATH,
    VICTIM,
    raw,
    request,
    temporal,
)

EVIL = "http://attacker.example"


def simple_posts(host: str, path: str, body: str) -> dict[str, bytes]:
    """POSTs that a page can send without a preflight."""
    return {
        f"{kind} with {fields}": request("POST", path, host, body, Content_Type=kind, **fields)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
        for fields in (
            {"Origin": EVIL, "Sec_Fetch_Site": "cross-site"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
            {"Sec_Fetch_Site": "same-site"},
        )
    }


def rebound(port: int, path: str, body: str) -> dict[str, bytes]:
    """Requests of a page whose host name points at this machine (DNS rebinding), so they are same-origin."""
    host = f"attacker.example:{port}"
    own = {"Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin", "Content_Type": "application/json"}
    return {
        "POST of a rebound page": request("POST", path, host, body, **own),
        "PUT of a rebound page": request("PUT", path, host, body, **own),
        "GET of a rebound page": request("GET", path, host, Sec_Fetch_Site="same-origin"),
        "a rebound page without Sec-Fetch": request(
            "POST", path, host, body, Content_Type="application/json"
        ),
    }


async def test_no_port_of_the_dev_server_lets_a_page_signal_a_workflow(tmp_path):
    async with temporal(tmp_path) as server:
        wrong = {}
        listening = [*server.backend_ports(), ("127.0.0.1", server.ui_port)]
        assert len(listening) >= 3  # gRPC, HTTP API, UI
        for host, port in listening:
            own = f"{host}:{port}"
            for path, body in ((SIGNAL_PATH, SIGNAL_BODY), (BATCH_PATH, BATCH_BODY)):
                cases = simple_posts(own, path, body)
                if port not in BLOCKED_PORTS:  # no browser connects there; the browser test shows it
                    cases |= rebound(port, path, body)
                for case, sent in cases.items():
                    answer = await raw(host, port, sent)
                    if answer.startswith(b"HTTP/1.1 2"):
                        wrong[f"{port} {case}"] = answer[:200]
        assert await server.signals() == 0
        assert wrong == {}
        # gRPC goes on, and so does the UI for a person.
        await server.client.get_workflow_handle(VICTIM).signal("set_workergroup", {})
        assert await server.signals() == 1


async def test_the_http_api_of_the_dev_server_answers_no_host_name(tmp_path):
    async with temporal(tmp_path) as server:
        for host, port in server.backend_ports():
            if port in (server.grpc_port, *BLOCKED_PORTS):
                continue
            for name in (f"127.0.0.1:{port}", "localhost", "", "attacker.example", "x.invalid"):
                answer = await raw(host, port, request("POST", SIGNAL_PATH, name, SIGNAL_BODY))
                assert not answer.startswith(b"HTTP/1.1 2"), (port, name, answer)
        assert await server.signals() == 0


async def test_a_person_uses_the_ui_through_its_guard(tmp_path):
    async with temporal(tmp_path) as server:
        own = f"127.0.0.1:{server.ui_port}"
        page = await raw("127.0.0.1", server.ui_port, request("GET", "/namespaces/stoker/workflows", own))
        assert page.startswith(b"HTTP/1.1 200")
        assert b"<!doctype html>" in page
        cookie = page.split(b"_csrf=")[1].split(b";")[0].decode()
        same = {
            "Origin": f"http://{own}",
            "Sec_Fetch_Site": "same-origin",
            "Content_Type": "application/json",
        }
        token = {"Cookie": f"_csrf={cookie}", "X_CSRF_TOKEN": cookie}
        signal = request("POST", SIGNAL_PATH, own, '{"input": {"payloads": []}}', **same, **token)
        answer = await raw("127.0.0.1", server.ui_port, signal)
        for _ in range(40):  # the UI's own connection to Temporal may still be in backoff after its start
            if not answer.startswith(b"HTTP/1.1 503"):
                break
            await asyncio.sleep(0.5)
            answer = await raw("127.0.0.1", server.ui_port, signal)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert await server.signals() == 1


async def test_the_ui_proxy_answers_refusals_with_problems(tmp_path):
    async with temporal(tmp_path) as server:
        port = server.ui_port
        answer = await raw("127.0.0.1", port, request("GET", "/", f"attacker.example:{port}"))
        assert problem_in(answer) == (421, "host_not_allowed")
        answer = await raw("127.0.0.1", port, request("GET", "/", f"127.0.0.1:{port}", Origin=EVIL))
        assert problem_in(answer) == (403, "cross_origin")
        upgrade = {"Upgrade": "websocket", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": EVIL}
        answer = await raw("127.0.0.1", port, request("GET", "/", f"127.0.0.1:{port}", **upgrade))
        assert problem_in(answer)[0] in (400, 403)


@pytest.mark.parametrize("name", ["engine", "market"])
async def test_a_page_is_refused_by_engine_and_marketplace_even_with_the_key(target, name):
    server = await target(name)
    own = f"127.0.0.1:{server.port}"
    body = json.dumps({"endpoint": "x", "cost": 1})
    paths = ["/route/", "/api/v0/endptjobs/"] if name == "engine" else ["/api/v0/asks/1/", "/host/faults/"]
    for path in paths:
        keyed = f"{path}?api_key={KEY}"
        cases = simple_posts(own, keyed, body) | rebound(server.port, keyed, body)
        for case, sent in cases.items():
            status, code = problem_in(await server.say(sent))
            assert (status, code) in {(403, "cross_origin"), (421, "host_not_allowed")}, (case, status, code)
    for path in ("/healthz", "/openapi.json", "/metrics"):
        answer = await server.say(request("GET", path, f"attacker.example:{server.port}"))
        assert problem_in(answer) == (421, "host_not_allowed")
    assert await server.serves()


@pytest.mark.parametrize("name", ["engine", "market"])
async def test_a_program_is_served_by_address_and_local_name(target, name):
    server = await target(name)
    for host in (f"127.0.0.1:{server.port}", "localhost", "engine:80", "[::1]:1", "10.0.0.9:8080"):
        answer = await server.say(request("GET", "/healthz", host))
        assert answer.startswith(b"HTTP/1.1 200"), (host, answer)
