"""Certificates for workers; waiting calls do not block each other."""

import asyncio

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from engine.engine import Engine
from engine.tls.certificate_authority import WAITING_EACH_MAX, WAITING_MAX, CertificateApi
from tests.engine.api.test_malformed_http import CA_PEM
from tests.engine.conftest import Stage
from tests.engine.fake_endpoint_workflow import until


def request_pem() -> bytes:
    """A certificate request."""
    key = ec.generate_private_key(ec.SECP256R1())
    return (
        x509.CertificateSigningRequestBuilder(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


async def ask(
    stage: Stage, http: aiohttp.ClientSession, instance_id: int, body: bytes, token: str = ""
) -> int:
    """The status of the response."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{stage.server.url}/api/v0/sign_cert/?instance_id={instance_id}"
    async with http.post(url, data=body, headers=headers) as answer:
        return answer.status


async def test_waiting_unknown_callers_do_not_keep_a_worker_from_its_certificate(
    bare_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks: list[CertificateApi] = []

    def open_api(engine: Engine) -> CertificateApi:
        desks.append(CertificateApi(engine))
        return desks[0]

    monkeypatch.setattr("engine.app.CertificateApi", open_api)
    monkeypatch.setattr("engine.tls.certificate_authority._UNKNOWN_SECONDS_MAX", 60.0)
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    route_api = desks[0]
    endpoint = await bare_stage.endpoint()
    worker, young = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    other = endpoint.worker("cccccccccccc", 103)
    await endpoint.script(
        groups=[1], members=[worker.member(a="10.0.0.9:3000"), young.member(), other.member()]
    )
    body = request_pem()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        crowd = [asyncio.ensure_future(ask(bare_stage, http, 5000 + n, body)) for n in range(WAITING_MAX)]
        await until(lambda: route_api.waiting[None] == WAITING_MAX, "the crowd waits")
        assert await ask(bare_stage, http, 9999, body) == 503, "the limit of unknown callers is reached"
        assert await ask(bare_stage, http, worker.instance_id, body, worker.token) == 200
        guesses = [
            asyncio.ensure_future(ask(bare_stage, http, other.instance_id, body))
            for _ in range(WAITING_EACH_MAX)
        ]
        await until(lambda: route_api.waiting[other.instance_id] == WAITING_EACH_MAX, "guessed calls wait")
        assert await ask(bare_stage, http, other.instance_id, body) == 503, "the limit of this instance"
        waits = asyncio.ensure_future(ask(bare_stage, http, young.instance_id, body, young.token))
        await until(lambda: route_api.waiting[young.instance_id] == 1, "a worker waits too")
        await endpoint.script(
            groups=[1],
            members=[
                worker.member(a="10.0.0.9:3000"),
                young.member(a="10.0.0.8:3000"),
                other.member(a="10.0.0.7:3000"),
            ],
        )
        assert await waits == 200, "a known instance may wait for its address"
        assert set(await asyncio.gather(*guesses)) == {403}, "not called from the instance's address"
        assert route_api.waiting == {None: WAITING_MAX}, "while the unknown callers still wait"
        monkeypatch.setattr("engine.tls.certificate_authority._UNKNOWN_SECONDS_MAX", 0.0)
        assert set(await asyncio.gather(*crowd)) == {404}


async def test_an_invalid_request_is_refused_without_a_wait(bare_stage: Stage) -> None:
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    async with aiohttp.ClientSession() as http, asyncio.timeout(2):
        assert await ask(bare_stage, http, 4711, b"none") == 400
