"""Certificates are checked unless the caller says otherwise."""

import datetime as dt
import ipaddress
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import stoker
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY


@pytest.fixture
def certificate(tmp_path):
    """A certificate for this machine that nobody but its owner trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a worker")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "worker.pem"
    path.write_bytes(
        made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.fixture
async def tls_worker(peers, certificate):
    """A worker that speaks https, and to which the engine routes everything."""

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
    peers.routing += [peers.route_to(url)] * 10
    yield url
    await runner.cleanup()


async def test_a_worker_that_nobody_vouches_for_gets_no_request(peers, client, tls_worker):
    endpoint = await client.get_endpoint("llm")
    with pytest.raises(stoker.WorkerFailed, match="certificate"):
        await endpoint.request("/x", {})


async def test_ones_own_authority_may_vouch_for_workers(peers, certificate, tls_worker):
    trust = ssl.create_default_context(cafile=str(certificate))
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify_workers=trust) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}


async def test_checking_can_be_switched_off(peers, tls_worker):
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, verify=False) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).json() == {"over": "tls"}
