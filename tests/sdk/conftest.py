"""A fake engine with one worker, and a client of it."""

import datetime as dt
import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import stoker
from stoker.loop_thread import LoopThread
from tests.sdk.peers import ACCOUNT_KEY, Peers


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """A running engine with the endpoint `llm`, and its worker."""
    peers = Peers()
    peers.endpoint()
    await peers.start_engine()
    await peers.start_worker()
    yield peers
    await peers.stop()


@pytest.fixture
def threaded_peers() -> Iterator[Peers]:
    """The same on a thread of their own, for tests without an event loop."""
    loop = LoopThread()
    peers = Peers()
    peers.endpoint()
    loop.run(peers.start_engine())
    loop.run(peers.start_worker())
    yield peers
    loop.run(peers.stop())
    loop.close()


QUICK = stoker.RetryPolicy(
    refusals_max=4,
    failures_max=2,
    engine_outage_seconds_max=30.0,
    pause_seconds_first=0.001,
    pause_seconds_max=0.01,
)


@pytest.fixture
async def client(peers: Peers) -> AsyncIterator[stoker.Serverless]:
    """A client of the fake engine with short pauses."""
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, timeout=30.0) as client:
        yield client


@pytest.fixture
async def endpoint(client: stoker.Serverless) -> stoker.Endpoint:
    """The endpoint `llm`."""
    return await client.get_endpoint("llm")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and worker.test, with its key, as a PEM file."""
    return make_certificate(tmp_path)


def make_certificate(tmp_path: Path, *, address: str = "127.0.0.1", hours: int = 1) -> Path:
    """A self-signed certificate with its key, valid for some hours; negative: expired so long ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a worker")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1 + abs(hours)))
        .not_valid_after(now + dt.timedelta(hours=hours))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("worker.test")]
            ),
            False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "worker.pem"
    path.write_bytes(
        signed.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path
