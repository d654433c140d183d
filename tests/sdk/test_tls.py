"""Certificates of engines and workers are checked, and what is wrong with one is named."""

import asyncio
import ssl

import pytest
from aiohttp import web
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app as command
from tests.sdk.conftest import QUICK, make_certificate
from tests.sdk.peers import ACCOUNT_KEY


@pytest.fixture
async def serve_tls(peers):
    """Starts a server with TLS; the engine routes every request to it."""
    runners = []

    async def serve(pem):
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"over": "tls"})

        app = web.Application()
        app.router.add_post("/x", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        peers.route_replies += [peers.route_to(url)] * 10
        return url

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def tls_worker(serve_tls, certificate):
    return await serve_tls(certificate)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "it is self-signed, and its issuer is unknown here"),
        ({"hours": -1}, "it has expired"),
        ({"address": "127.0.0.2"}, "it is for another IP address"),
    ],
    ids=["unknown issuer", "expired", "another host"],
)
async def test_what_is_wrong_with_a_workers_certificate_is_named_and_no_worker_is_blamed(
    peers, client, serve_tls, tmp_path, options, reason
):
    pem = make_certificate(tmp_path, **options)
    url = await serve_tls(pem)
    peers.root_pem = certificates_of(pem) if options else None
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.CertificateNotTrusted, match=reason) as refused:
        await endpoint.request("/x", {})
    assert url in str(refused.value)
    assert [call.body.get("failed_url") for call in peers.route_calls] == [None]


async def test_workers_of_the_engines_own_authority_are_trusted(peers, client, certificate, tls_worker):
    peers.root_pem = certificates_of(certificate)
    endpoint = await client.get_endpoint("llm")
    assert (await endpoint.request("/x", {})).json() == {"over": "tls"}
    assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_an_engine_without_an_authority_is_not_asked_before_every_request(
    peers, client, serve_tls, tmp_path
):
    await serve_tls(make_certificate(tmp_path))
    endpoint = await client.get_endpoint("llm")
    for _ in range(3):
        with pytest.raises(stoker.CertificateNotTrusted):
            await endpoint.request("/x", {})
    assert peers.root_calls == 1


async def test_an_authority_with_a_new_key_is_trusted_by_a_client_that_runs(
    peers, client, certificate, tls_worker, monkeypatch
):
    monkeypatch.setattr("stoker.trust.FETCH_AGAIN_SECONDS", 0.0)
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.CertificateNotTrusted):
        await endpoint.request("/x", {})
    peers.root_pem = certificates_of(certificate)
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await endpoint.request("/x", {})).json() == {"over": "tls"}
                break
            except stoker.CertificateNotTrusted:
                await asyncio.sleep(0.01)


async def test_an_engine_that_sends_no_certificate_changes_nothing(peers, client, tls_worker):
    peers.root_pem = "<html>no certificate</html>"
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.CertificateNotTrusted, match="issuer is unknown"):
        await endpoint.request("/x", {})


async def test_workers_are_trusted_through_an_authority_of_the_caller(peers, certificate, tls_worker):
    trust = ssl.create_default_context(cafile=str(certificate))
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify_workers=trust) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_workers_are_trusted_through_a_file_of_authorities(peers, certificate, tls_worker, monkeypatch):
    monkeypatch.setenv("STOKER_CA_FILE", str(certificate))
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_certificate_checks_can_be_switched_off(peers, tls_worker):
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify=False) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_an_engine_whose_certificate_is_not_trusted_is_no_outage(tls_worker):
    async with stoker.Serverless(ACCOUNT_KEY, url=tls_worker) as client:
        with pytest.raises(
            stoker.CertificateNotTrusted, match="certificate of the engine at https://127.0.0.1"
        ):
            await client.get_endpoint("llm")


async def test_the_command_names_the_certificate_and_not_an_engine_that_does_not_answer(tls_worker):
    called = await asyncio.to_thread(
        CliRunner().invoke, command, ["--url", tls_worker, "--api-key", ACCOUNT_KEY, "endpoints", "list"]
    )
    assert called.exit_code != 0
    said = " ".join(called.output.split())
    assert "certificate of the engine" in said
    assert "issuer is unknown" in said
    assert "has not answered" not in said


def test_a_file_of_authorities_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("STOKER_CA_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(stoker.Invalid, match="STOKER_CA_FILE"):
        stoker.Serverless(ACCOUNT_KEY, url="https://127.0.0.1:1")


def certificates_of(pem):
    """The certificates in a file, without keys."""
    text = pem.read_text()
    return text[: text.index("-----BEGIN PRIVATE KEY-----")]
