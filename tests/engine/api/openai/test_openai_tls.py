"""Workers that speak TLS: the engine trusts its own authority, and names what is wrong with other certificates."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import stoker
from engine.tls.certificate_authority import Authority
from tests.engine.api.model_server import MODEL, ModelServer, pyworker
from tests.engine.api.openai.test_openai import path
from tests.engine.conftest import Stage


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


CA_PEM, OTHER_CA_PEM = (key_pem(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))


def certificate(ca_pem: bytes, folder: Path, address: str = "127.0.0.1") -> dict[str, object]:
    """A worker's environment with a certificate of this authority for an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = Authority(ca_pem).issue(request.public_bytes(Encoding.PEM), address)
    (folder / "instance.crt").write_bytes(pem)
    (folder / "instance.key").write_bytes(key_pem(key))
    return {
        "use_ssl": True,
        "tls_certificate": folder / "instance.crt",
        "tls_key": folder / "instance.key",
    }


@pytest.mark.parametrize(
    ("ca_pem", "address", "reason"),
    [
        (CA_PEM, "127.0.0.1", ""),
        (OTHER_CA_PEM, "127.0.0.1", "its issuer is unknown here"),
        (CA_PEM, "127.0.0.2", "it is for another IP address"),
    ],
    ids=["its own authority", "another authority", "another host"],
)
async def test_engine_and_client_trust_workers_of_the_engines_own_authority(
    bare_stage: Stage, tmp_path: Path, ca_pem: bytes, address: str, reason: str
) -> None:
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    endpoint = await bare_stage.endpoint()
    environment = certificate(ca_pem, tmp_path, address)
    async with pyworker(bare_stage, endpoint, ModelServer(), tmp_path / "worker", environment=environment):
        payload = {"model": MODEL, "messages": []}
        status, answer = await bare_stage.call(
            "POST", path(endpoint, "chat/completions"), payload, key=endpoint.key
        )
        async with stoker.Serverless(endpoint.key, url=bare_stage.server.url) as client:
            handle = await client.get_endpoint(endpoint.name)
            if not reason:
                assert (await handle.request("/v1/chat/completions", payload)).status == 200
            else:
                with pytest.raises(stoker.CertificateNotTrusted, match=reason):
                    await handle.request("/v1/chat/completions", payload)
        known = bare_stage.server.engine.directory.named(endpoint.name)
        assert [worker.suspicion.since for worker in known.workers.values()] == [None]
    if not reason:
        assert status == 200, answer
        return
    assert (status, answer["error"]["code"]) == (502, "worker_certificate")
    assert "certificate" in answer["error"]["message"]
    assert reason in answer["error"]["message"]
    assert "https://127.0.0.1:" in answer["error"]["message"]
