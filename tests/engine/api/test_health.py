"""Health, metrics, limits, and secrets in logs and reprs."""

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.api.keys import Accounts
from engine.app import start_server
from engine.settings import EngineSettings, Limits
from stoker_wire.security.token import mint_worker_token
from tests.engine.conftest import ALICE, SECRET, Stage, settings
from tests.engine.fake_endpoint_workflow import until
from webserver.connections import ConnectionLimits


async def test_a_running_engine_is_healthy_and_ready_for_everyone(stage: Stage) -> None:
    assert (await stage.call("GET", "/healthz"))[1]["ok"] is True
    assert await stage.call("GET", "/readyz") == (200, {"ready": True, "reason": ""})


async def test_replies_and_problems_have_exactly_the_content_type_application_json(
    stage: Stage,
) -> None:
    for path, status in [("/healthz", 200), ("/api/v0/endptjobs/", 401), ("/nothing/", 404)]:
        async with stage.http.get(stage.server.url + path) as response:
            assert (response.status, response.headers["Content-Type"]) == (status, "application/json")


async def test_a_stopping_engine_or_one_without_temporal_is_not_ready_and_says_why(stage: Stage) -> None:
    engine = stage.server.engine
    engine.endpoint_watcher.polled_at -= 1000
    reason = engine.readiness()
    assert "Temporal has not answered" in reason
    engine.stop_holding()
    status, body = await stage.call("GET", "/readyz")
    assert (status, body["ready"]) == (503, False)
    assert "stopping" in body["reason"]


async def test_account_holders_read_metrics_of_routes_queues_and_workers(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    await endpoint.route()
    assert (await stage.call("GET", "/metrics"))[0] == 401

    status, text = await stage.call("GET", "/metrics", key=ALICE)

    assert status == 200
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    name = endpoint.name
    assert samples["stoker_routes_total", "given", name] == 1
    assert samples["stoker_workers_routable", name] == 1
    assert samples["stoker_workers_load", name] == 100
    assert samples["stoker_queue_requests", name] == 0
    assert samples["stoker_worker_reports_total", name] == 1
    assert "sk-ep-" not in text


async def test_an_account_sees_metrics_of_its_own_endpoints_only(stage: Stage) -> None:
    mine, theirs = await stage.endpoint(owner="alice"), await stage.endpoint(owner="bob")
    _, text = await stage.call("GET", "/metrics", key=ALICE)
    assert f'"{mine.name}"' in text
    assert f'"{theirs.name}"' not in text


async def test_connections_over_the_limit_are_refused_and_the_others_continue(bare_stage: Stage) -> None:
    server = await bare_stage.start_engine(limits=Limits(connections=ConnectionLimits(connections_max=2)))
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    for _, writer in held:  # busy connections: an idle one would be closed to make room
        writer.write(b"POST /route/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
    await until(lambda: server.http.connections == 2 and not server.http.idle, "two connections are at work")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 503")
    writer.close()
    for reader, writer in held:
        writer.write(b"{}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b'"ok":true' in await asyncio.wait_for(reader.read(), 10)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /route/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
    ],
)
async def test_malformed_http_is_a_400_without_traceback(
    stage: Stage, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.server.port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", answer)
    assert b"Traceback" not in answer
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_a_body_that_never_ends_times_out(bare_stage: Stage) -> None:
    server = await bare_stage.start_engine(limits=Limits(body_seconds_max=0.1))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /route/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.read(20), 10)
    assert answer.startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_port_in_use_is_an_error_and_leaves_nothing_running(stage: Stage) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await start_server(settings(port=stage.server.port), stage.env.client)


def test_settings_and_keys_do_not_show_their_secrets() -> None:
    shown = repr(settings()) + repr(Accounts({"alice": ALICE}))
    assert "alice" in shown
    assert ALICE not in shown
    assert "PRIVATE" not in shown
    assert SECRET.decode() not in shown


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"secret": b"short"}, "16 bytes"),
        ({"accounts": {"a": "short"}}, "16 characters"),
        ({"public_url": "http://x/"}, "slash"),
    ],
)
def test_unsafe_settings_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        EngineSettings(**{"secret": SECRET, "rsa_private_key_pem": b""} | changes)  # type: ignore[arg-type]


async def test_no_log_line_holds_a_key_or_a_token(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    await worker.report(error_msg="model failed")
    await stage.post(f"/route/?api_key={endpoint.key}x", {"endpoint": endpoint.name, "api_key": ALICE + "x"})
    await stage.post("/worker_status/", worker.status(mtoken=mint_worker_token(b"y" * 32, 1, "x")))
    out = "".join(capfd.readouterr())
    assert "worker_error" in out
    for secret in (endpoint.key, worker.token, ALICE, SECRET.decode()):
        assert secret not in out
