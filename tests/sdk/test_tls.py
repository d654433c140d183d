"""Certificates of workers are checked by default."""

import ssl

import pytest
from aiohttp import web

import stoker
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY


@pytest.fixture
async def tls_worker(peers, certificate):
    """A worker with TLS, to which the engine routes every request."""

    async def serve(_: web.Request) -> web.Response:
        return web.json_response({"over": "tls"})

    app = web.Application()
    app.router.add_post("/x", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    peers.route_replies += [peers.route_to(url)] * 10
    yield url
    await runner.cleanup()


async def test_a_worker_with_an_untrusted_certificate_gets_no_request(peers, client, tls_worker):
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.WorkerFailed, match="certificate"):
        await endpoint.request("/x", {})


async def test_workers_are_trusted_through_an_authority_of_the_caller(peers, certificate, tls_worker):
    trust = ssl.create_default_context(cafile=str(certificate))
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify_workers=trust) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_certificate_checks_can_be_switched_off(peers, tls_worker):
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify=False) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}
