"""Lifetime of tickets, and the caches of the ticket issuer. No I/O."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from activities.signing import sealed_signing_key
from engine.routing import ticket_issuer as ticket_issuer_module
from engine.routing.outstanding import OutstandingLoad
from engine.routing.ticket_issuer import TicketIssuer
from stoker_wire.security.fingerprint import TICKET_CHARS
from stoker_wire.security.ticket import TICKET_SECONDS, TicketRefused, verify_ticket
from stoker_wire.security.token import mint_worker_token, ticket_key

NEW, OLD = b"the new secret of the tests" + b"!" * 8, b"the old secret of the tests" + b"!" * 8
PEM = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


@pytest.fixture
def ticket_issuer() -> TicketIssuer:
    return TicketIssuer(secrets=(NEW, OLD), rsa_private_key_pem=PEM)


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_issuer_module, "_CACHED_MAX", 3)


def ticket(ticket_issuer: TicketIssuer, *, launch_id: str = "a", now: float = 1000.0, **more: object) -> str:
    return ticket_issuer.ticket(
        endpoint_id=7,
        endpoint_name="llm",
        launch_id=launch_id,
        cost=5.0,
        request_idx=3,
        reqnum=9,
        now=now,
        **more,  # type: ignore[arg-type]
    )


def key_of(secret: bytes, launch_id: str = "a", endpoint_id: int = 7) -> bytes:
    return ticket_key(mint_worker_token(secret, endpoint_id, launch_id))


def test_a_ticket_is_valid_for_exactly_its_lifetime(ticket_issuer: TicketIssuer) -> None:
    text = ticket(ticket_issuer, now=1000.0)
    opened = verify_ticket(text, key_of(NEW), worker="a", now=1000.0 + TICKET_SECONDS)
    assert (opened.e, opened.w, opened.c, opened.r, opened.n, opened.x) == ("llm", "a", 5.0, 3, 9, 1060.0)
    with pytest.raises(TicketRefused) as refused:
        verify_ticket(text, key_of(NEW), worker="a", now=1000.001 + TICKET_SECONDS)
    assert refused.value.code == "ticket_expired"


def test_outstanding_load_drops_a_ticket_when_it_expires() -> None:
    ledger = OutstandingLoad()
    ledger.issue(1, 5.0, now=1000.0, expires_at=1000.0 + TICKET_SECONDS)
    assert ledger.expire(999.999 + TICKET_SECONDS) == 0
    assert ledger.expire(1000.0 + TICKET_SECONDS) == 1


def test_a_ticket_is_signed_with_the_secret_of_the_workers_token(ticket_issuer: TicketIssuer) -> None:
    unknown = ticket(ticket_issuer)
    for secret in (NEW, OLD):
        assert verify_ticket(unknown, key_of(secret), worker="a", now=1000.0).r == 3
    shown = ticket(ticket_issuer, secret=OLD)
    assert verify_ticket(shown, key_of(OLD), worker="a", now=1000.0).r == 3
    with pytest.raises(TicketRefused):
        verify_ticket(shown, key_of(NEW), worker="a", now=1000.0)


def test_a_ticket_names_the_refused_requests_by_the_start_of_their_fingerprints(
    ticket_issuer: TicketIssuer,
) -> None:
    long = ("a" * 43, "b" * 43)
    text = ticket(ticket_issuer, refused=long)
    assert verify_ticket(text, key_of(NEW), worker="a", now=1000.0).b == tuple(
        each[:TICKET_CHARS] for each in long
    )
    assert not verify_ticket(ticket(ticket_issuer), key_of(NEW), worker="a", now=1000.0).b


@pytest.mark.usefixtures("small_caches")
def test_a_full_key_cache_signs_for_the_right_worker(ticket_issuer: TicketIssuer) -> None:
    kept = []
    for name in "abcdabcd":
        text = ticket(ticket_issuer, launch_id=name)
        assert verify_ticket(text, key_of(NEW, name), worker=name, now=1000.0).w == name
        kept.append(len(ticket_issuer._ticket_keys))
    assert kept == [1, 2, 3, 1, 2, 3, 1, 2], "a fourth key empties the cache"


@pytest.mark.usefixtures("small_caches")
def test_a_signature_is_made_once_per_url_and_is_of_that_url(ticket_issuer: TicketIssuer) -> None:
    public = load_pem_public_key(ticket_issuer.public_key_pem)
    assert isinstance(public, rsa.RSAPublicKey)
    kept = []
    for number in (1, 2, 3, 4, 1):
        url = f"http://10.0.0.{number}:3000"
        signature = ticket_issuer.signature(url)
        signed = json.dumps({"url": url}, indent=4, sort_keys=True).encode()
        public.verify(base64.b64decode(signature), signed, padding.PKCS1v15(), hashes.SHA256())
        assert ticket_issuer.signature(url) == signature
        kept.append(len(ticket_issuer._signatures))
    assert kept == [1, 2, 3, 1, 2]


def test_a_worker_that_reports_on_its_launchs_path_gets_a_signature_of_the_launchs_key(
    ticket_issuer: TicketIssuer,
) -> None:
    sealed = sealed_signing_key(OLD, "a")
    signature = base64.b64decode(ticket_issuer.signature("http://10.0.0.1:3000", "a", sealed))
    pem = ticket_issuer.public_key_of("a", sealed)
    assert pem is not None
    launch, deployment = load_pem_public_key(pem), load_pem_public_key(ticket_issuer.public_key_pem)
    assert isinstance(launch, rsa.RSAPublicKey)
    assert isinstance(deployment, rsa.RSAPublicKey)
    signed = json.dumps({"url": "http://10.0.0.1:3000"}, indent=4).encode()
    launch.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        deployment.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


def test_the_expiry_of_a_ticket_is_rounded_to_milliseconds(ticket_issuer: TicketIssuer) -> None:
    text = ticket(ticket_issuer, now=1000.1236)
    assert verify_ticket(text, key_of(NEW), worker="a", now=1000.0).x == 1060.124


def test_the_contents_of_an_own_ticket_can_be_read_after_it_expired(ticket_issuer: TicketIssuer) -> None:
    for secret in (NEW, OLD, None):
        text = ticket(ticket_issuer, now=1.0, secret=secret)
        opened = ticket_issuer.ticket_of(text, endpoint_id=7, launch_id="a")
        assert opened is not None
        assert (opened.r, opened.x) == (3, 61.0)
    assert ticket_issuer.ticket_of(text, endpoint_id=8, launch_id="a") is None
    assert ticket_issuer.ticket_of(text, endpoint_id=7, launch_id="b") is None
    assert ticket_issuer.ticket_of("no ticket", endpoint_id=7, launch_id="a") is None
