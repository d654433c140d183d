"""An official worker with TLS: its certificate comes from stoker by the official protocol, and the official client
trusts it."""

import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

import stoker
from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Deployment

Ready = Callable[[str], dict[str, Any]]

CASES = {
    "json_in_and_out": None,
    "server_sent_events_stream": [0, 1, 2, 3],
    "a_session_keeps_its_worker": {"urls": 1, "open": True, "lifetime": 30, "after": False},
    "coroutines_do_the_same": {"200": 5, "in session": 200, "events": 3},
}


@call("sign-cert", "worker-json", "worker-sse", "session-create", "session-request")
def test_the_official_client_reaches_an_official_worker_over_tls(
    deployment: Deployment, ready: Ready
) -> None:
    assert ready("theirs-tls")["url"].startswith("https://")
    seen = deployment.script("client.py", endpoint="theirs-tls", template="ours", cases=list(CASES))
    assert all(line["ok"] for line in seen.values()), seen
    for case, expected in CASES.items():
        assert expected is None or seen[case]["value"] == expected


@call("sign-cert")
def test_the_certificate_is_for_the_instances_address_and_for_nothing_else(
    deployment: Deployment, ready: Ready
) -> None:
    port = int(ready("theirs-tls")["url"].rpartition(":")[2])
    root = deployment.http.get(f"{deployment.engine}/static/jvastai_root.cer").text
    context = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@call("sign-cert")
@pytest.mark.parametrize(
    ("what", "status"),
    [("an unknown instance", 404), ("no request", 400), ("a weak request", 400)],
)
def test_no_certificate_is_issued_for(deployment: Deployment, ready: Ready, what: str, status: int) -> None:
    number = 10**9 if what == "an unknown instance" else ready("theirs-tls")["id"]
    body = _request(names=[x509.DNSName("bank.example")]) if what == "an unknown instance" else b"hello"
    if what == "a weak request":
        body = _request(names=[]).replace(b"M", b"N", 3)
    answer = deployment.http.post(
        f"{deployment.engine}/api/v0/sign_cert/?instance_id={number}", content=body, timeout=40
    )
    assert answer.status_code == status, answer.text


@call("sign-cert")
def test_names_that_a_request_asks_for_are_ignored(deployment: Deployment, ready: Ready) -> None:
    number = ready("theirs-tls")["id"]
    body = _request(names=[x509.DNSName("bank.example"), x509.IPAddress(ipaddress.ip_address("8.8.8.8"))])
    answer = deployment.http.post(f"{deployment.engine}/api/v0/sign_cert/?instance_id={number}", content=body)
    issued = x509.load_pem_x509_certificate(answer.content)
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_stokers_own_client_reaches_it_with_the_root_that_the_engine_serves(
    deployment: Deployment, ready: Ready, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    ready("theirs-tls")
    root = tmp_path / "root.pem"
    root.write_bytes(deployment.http.get(f"{deployment.engine}/static/jvastai_root.cer").content)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    async with stoker.Serverless(deployment.key, url=deployment.engine) as client:
        endpoint = await client.get_endpoint("theirs-tls")
        assert (await endpoint.request("/json", {"tokens": 1}, cost=1)).status == 200


def _request(*, names: list[x509.GeneralName]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)
