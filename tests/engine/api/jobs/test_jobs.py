"""Jobs and WebSockets through the engine, with a real worker before a server with ComfyUI's API."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from engine.app import Server
from engine.tls.certificate_authority import Authority
from stoker_pyworker.worker import WorkerRuntime
from tests.comfyui import PNG, ComfyUI, comfyui_handlers, make_image
from tests.engine.api.model_server import pyworker
from tests.engine.api.openai.test_openai_tls import CA_PEM, certificate
from tests.engine.conftest import ALICE, BOB, EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until

PAGE = "https://images.example.com"


class ComfyModel:
    """ComfyUI as the model server of `pyworker`."""

    def __init__(self) -> None:
        self.comfyui = ComfyUI()
        self.server = self
        self.port = 0

    async def start_server(self) -> None:
        await self.comfyui.start()
        self.port = self.comfyui.port

    async def close(self) -> None:
        await self.comfyui.stop()


class JobStage:
    """An endpoint with one worker."""

    def __init__(
        self, stage: Stage, endpoint: EndpointDouble, comfyui: ComfyUI, worker: WorkerRuntime
    ) -> None:
        self.stage, self.endpoint, self.comfyui, self.worker = stage, endpoint, comfyui, worker
        self.http = stage.http
        self.door = f"{stage.server.url}/openai/{endpoint.name}"
        self.key = {"Authorization": f"Bearer {endpoint.key}"}

    async def other_engine(self) -> Server:
        """A second engine, which knows the worker from the endpoint's memo."""
        member = self.endpoint.worker().member(u=f"http://127.0.0.1:{self.worker.port}")
        await self.endpoint.script(members=[member])
        other = await self.stage.start_engine()

        def known() -> bool:
            endpoint = other.engine.directory.named(self.endpoint.name)
            return endpoint is not None and any(each.route_url for each in endpoint.workers.values())

        await until(known, "the engine knows the worker")
        return other

    async def open(self, **headers: str) -> dict[str, object]:
        url = f"{self.stage.server.url}/job/{self.endpoint.name}"
        async with self.http.post(url, headers=self.key | headers) as answered:
            assert answered.status == 201
            return await answered.json()


@pytest_asyncio.fixture(loop_scope="session")
async def jobs(stage: Stage, tmp_path: Path) -> AsyncIterator[JobStage]:
    endpoint = await stage.endpoint(allowed_origins=[PAGE])
    model = ComfyModel()
    async with pyworker(
        stage, endpoint, model, tmp_path / "worker", handlers=comfyui_handlers(), health="/queue"
    ) as worker:
        yield JobStage(stage, endpoint, model.comfyui, worker)


async def test_a_client_of_comfyui_works_with_the_address_of_a_job_and_without_a_key(jobs: JobStage) -> None:
    job = await jobs.open()
    assert job["cost"] == 100, "the default of the largest rule among the job's routes"
    for base in (job["url"], (await jobs.open())["worker_url"]):
        images, events = await make_image(jobs.http, base)
        assert images == [PNG]
        assert events[-1]["data"]["node"] is None
    served = {"routes_given": 2}
    counters = jobs.stage.server.engine.directory.named(jobs.endpoint.name).counters
    assert {name: getattr(counters, name) for name in served} == served
    async with jobs.http.delete(job["url"]) as answered:
        assert (answered.status, (await answered.json())["ended"]) == (200, True)
    async with jobs.http.get(f"{job['url']}/history/1") as answered:
        assert (answered.status, (await answered.json())["error"]) == (401, "ticket_used")


async def test_an_endpoint_without_a_route_for_jobs_opens_none(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker, version="stoker-0.2.0", routes=[{"path": "/v1/completions"}])
    url, key = f"{stage.server.url}/job/{endpoint.name}", {"Authorization": f"Bearer {endpoint.key}"}
    async with stage.http.post(url, headers=key) as answered:
        assert answered.status == 415
        assert "in_job=True" in (await answered.json())["msg"]
    assert stage.server.engine.directory.named(endpoint.name).load == 0
    await worker.report(version="stoker-0.2.0", routes=[{"path": "/prompt", "in_job": True}])
    async with stage.http.post(url, headers=key) as answered:
        assert answered.status == 201


async def test_another_engine_serves_the_same_job(jobs: JobStage) -> None:
    job = await jobs.open()
    other = await jobs.other_engine()
    base = str(job["url"]).replace(jobs.stage.server.url, other.url)
    async with jobs.http.get(f"{base}/history/1") as answered:
        assert (answered.status, await answered.json()) == (200, {})


async def test_a_job_needs_a_key_to_open_and_a_ticket_of_its_endpoint_for_its_calls(jobs: JobStage) -> None:
    url = f"{jobs.stage.server.url}/job/{jobs.endpoint.name}"
    for headers, status in (
        ({}, 401),
        ({"Authorization": f"Bearer {BOB}"}, 404),
        ({"Authorization": "Bearer x"}, 401),
    ):
        async with jobs.http.post(url, headers=headers) as answered:
            assert answered.status == status
    async with jobs.http.post(url, headers={"Authorization": f"Bearer {ALICE}"}) as answered:
        job = await answered.json()
    ticket = job["url"].rpartition("/")[2]
    body, _, mac = ticket.partition(".")
    seen = len(jobs.comfyui.seen)
    other = await jobs.stage.endpoint()
    for bad in (
        f"{url}/x/history/1",
        f"{url}/{body}/history/1",
        f"{url}/{body}.{mac[::-1]}/history/1",
        f"{url}/{body[:-4]}AAAA.{mac}/history/1",
        f"{jobs.stage.server.url}/job/none/{ticket}/history/1",
    ):
        async with jobs.http.get(bad, headers=jobs.key) as answered:
            assert (answered.status, (await answered.json())["error"]) == (401, "ticket_forged")
    async with jobs.http.get(f"{jobs.stage.server.url}/job/{other.name}/{ticket}/history/1") as answered:
        assert answered.status == 410
    assert len(jobs.comfyui.seen) == seen


@pytest.mark.parametrize(
    "path",
    ["history/..%2fadmin", "files/%2e%2e/admin", "files/a/%252e%252e/%252e%252e/admin", "admin", "queue"],
)
async def test_a_job_reaches_only_the_routes_of_jobs(jobs: JobStage, path: str) -> None:
    job = await jobs.open()
    seen = len(jobs.comfyui.seen)
    reader, writer = await asyncio.open_connection("127.0.0.1", jobs.stage.server.port)
    target = str(job["url"]).removeprefix(jobs.stage.server.url)
    writer.write(f"GET {target}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readline()
    assert head.split()[1] in (b"404", b"403")
    writer.close()
    assert [target for _, target in jobs.comfyui.seen[seen:] if target != "/queue"] == []


async def test_paths_and_query_strings_pass_unchanged(jobs: JobStage) -> None:
    job = await jobs.open()
    for target in ("/files/a%20b/%C3%A9+c.png?x=1&x=2&y=%2F..%2F&z", "/view?filename=a%26b.png&q=..%2f.."):
        for base, headers in ((job["url"], {}), (jobs.door, jobs.key)):
            reader, writer = await asyncio.open_connection("127.0.0.1", jobs.stage.server.port)
            path = str(base).removeprefix(jobs.stage.server.url) + target
            lines = [
                f"GET {path} HTTP/1.1",
                "Host: 127.0.0.1",
                "Connection: close",
                *(f"{k}: {v}" for k, v in headers.items()),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            assert (await reader.readline()).split()[1] == b"200"
            writer.close()
            assert jobs.comfyui.seen[-1] == ("GET", target)


async def test_any_method_that_a_route_takes_passes_the_openai_address(jobs: JobStage) -> None:
    for method, path, status in (
        ("GET", "/history/1", 200),
        ("HEAD", "/view?filename=a.png", 200),
        ("OPTIONS", "/prompt", 204),
        ("GET", "/prompt", 200),
        ("DELETE", "/prompt", 405),
        ("GET", "/history", 404),
    ):
        async with jobs.http.request(method, jobs.door + path, headers=jobs.key) as answered:
            assert answered.status == status, (method, path, await answered.text())
            if status == 405:
                assert answered.headers["Allow"] == "GET, POST, HEAD, OPTIONS"
            if method == "HEAD":
                assert answered.headers["Content-Length"] == str(len(PNG))


async def test_one_websocket_passes_the_openai_address_with_its_pings_and_close_codes(jobs: JobStage) -> None:
    url = f"{jobs.door}/echo"
    async with jobs.http.ws_connect(
        url, headers=jobs.key, autoping=False, compress=15, max_msg_size=0
    ) as socket:
        assert socket.compress == 15
        await socket.send_bytes(bytes(3 * 2**20))
        assert len((await socket.receive()).data) == 3 * 2**20
        await socket.ping(b"there?")
        assert (await socket.receive())[:2] == (aiohttp.WSMsgType.PONG, b"there?")
        await socket.send_str("close 4001")
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (4001, "as asked")
    await until(lambda: not jobs.worker.proxy.active, "the worker has ended the WebSocket")


async def test_a_page_sends_its_key_as_a_subprotocol(jobs: JobStage) -> None:
    for offers, chosen in ((("stoker",), "stoker"), (("chat",), "chat")):
        protocols = (*offers, f"openai-insecure-api-key.{jobs.endpoint.key}")
        async with jobs.http.ws_connect(f"{jobs.door}/echo", protocols=protocols) as socket:
            assert socket.protocol == chosen
    assert not any(jobs.endpoint.key in str(headers) for headers in jobs.comfyui.headers)


async def test_pages_of_other_origins_open_no_websocket(jobs: JobStage) -> None:
    job = await jobs.open()
    for url, headers in ((f"{jobs.door}/echo", jobs.key), (f"{job['url']}/echo", {})):
        for origin in ("https://evil.example", "null"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await jobs.http.ws_connect(url, headers=headers | {"Origin": origin})
            assert refused.value.status == 403
        async with jobs.http.ws_connect(url, headers=headers | {"Origin": PAGE}) as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"


async def test_without_a_key_no_websocket_opens_and_no_worker_is_asked(jobs: JobStage) -> None:
    seen = len(jobs.comfyui.seen)
    for url in (f"{jobs.door}/echo", f"{jobs.door}/prompt", f"{jobs.stage.server.url}/echo"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await jobs.http.ws_connect(url)
        assert refused.value.status in (400, 401)
    assert [target for _, target in jobs.comfyui.seen[seen:] if target != "/queue"] == []


async def test_the_answer_of_a_model_that_refuses_a_websocket_is_passed_on(jobs: JobStage) -> None:
    headers = jobs.key | {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }  # fmt: skip
    async with jobs.http.get(f"{jobs.door}/refuses", headers=headers) as answered:
        assert (answered.status, answered.headers["X-Why"]) == (403, "full")
        assert answered.headers["Connection"] == "close"
        assert await answered.json() == {"detail": "no more sockets"}


async def test_a_model_that_drops_a_websocket_is_seen_as_a_failure(jobs: JobStage) -> None:
    async with jobs.http.ws_connect(f"{jobs.door}/drops", headers=jobs.key) as socket:
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1011)


async def test_a_client_that_disappears_ends_the_websocket_at_the_model(jobs: JobStage) -> None:
    socket = await jobs.http.ws_connect(f"{jobs.door}/echo", headers=jobs.key)
    cut = jobs.comfyui.cut
    socket._response.connection.transport.abort()
    await until(lambda: jobs.comfyui.cut == cut + 1, "the model sees the end")
    await until(lambda: not jobs.worker.proxy.active, "the worker has ended it")


async def test_a_client_that_has_sent_its_last_byte_still_gets_the_answer(jobs: JobStage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", jobs.stage.server.port)
    path = jobs.door.removeprefix(jobs.stage.server.url)
    writer.write(
        f"GET {path}/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Authorization: Bearer {jobs.endpoint.key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.write(b"\x81\x85\0\0\0\0hello" + b"\x88\x82\0\0\0\0" + (4003).to_bytes(2))
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer == b"\x81\x05hello" + b"\x88\x02" + (1000).to_bytes(2)
    writer.close()
    await until(lambda: not jobs.worker.proxy.active, "the worker has ended it")


async def test_an_open_websocket_is_load_of_its_worker_until_it_closes(jobs: JobStage) -> None:
    known = jobs.stage.server.engine.directory.named(jobs.endpoint.name)
    (worker,) = known.workers.values()
    job = await jobs.open()
    async with jobs.http.ws_connect(f"{job['url']}/echo"):
        await until(lambda: job["request_idx"] in worker.report.status.working_request_idxs, "it is reported")
        assert worker.report.status.cur_load == 100
        assert worker.outstanding.load == 100
    async with jobs.http.delete(str(job["url"])) as answered:
        assert answered.status == 200
    await until(lambda: worker.outstanding.load == 0, "the worker is free again")


async def test_websockets_reach_workers_that_speak_tls(bare_stage: Stage, tmp_path: Path) -> None:
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    endpoint = await bare_stage.endpoint()
    model = ComfyModel()
    async with pyworker(
        bare_stage,
        endpoint,
        model,
        tmp_path / "worker",
        handlers=comfyui_handlers(),
        health="/queue",
        environment=certificate(CA_PEM, tmp_path),
    ) as worker:
        jobs = JobStage(bare_stage, endpoint, model.comfyui, worker)
        job = await jobs.open()
        images, _ = await make_image(bare_stage.http, job["url"])
        assert images == [PNG]
        trust = ssl.create_default_context(cadata=Authority(CA_PEM).root_pem.decode())
        job = await jobs.open()
        assert str(job["worker_url"]).startswith("https://")
        images, _ = await make_image(bare_stage.http, job["worker_url"], ssl=trust)
        assert images == [PNG]
        async with bare_stage.http.ws_connect(
            f"{jobs.door}/echo", headers=jobs.key, max_msg_size=0
        ) as socket:
            await socket.send_bytes(bytes(3 * 2**20))
            assert len((await socket.receive()).data) == 3 * 2**20
            await socket.send_str("close 4001")
            assert (await socket.receive()).data == 4001
        async with bare_stage.http.ws_connect(f"{jobs.door}/drops", headers=jobs.key) as socket:
            assert (await socket.receive()).data == 1011


async def test_a_stopping_engine_closes_websockets_as_going_away(jobs: JobStage) -> None:
    other = await jobs.other_engine()
    job = await jobs.open()
    base = str(job["url"]).replace(jobs.stage.server.url, other.url)
    async with jobs.http.ws_connect(f"{base}/echo") as socket:
        jobs.stage.servers.remove(other)
        closing = asyncio.create_task(other.close())
        closed = await socket.receive()
        assert (closed.data, closed.extra) == (1001, "engine_stopping")
    await closing


async def test_a_handshake_with_a_body_is_refused(jobs: JobStage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", jobs.stage.server.port)
    path = jobs.door.removeprefix(jobs.stage.server.url)
    smuggled = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    writer.write(
        f"GET {path}/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Authorization: Bearer {jobs.endpoint.key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 3\r\n\r\nabc{smuggled}".encode()
    )
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b"HTTP/1.1 200" not in answer
    writer.close()
