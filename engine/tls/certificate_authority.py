"""Certificate authority that gives workers TLS certificates, with the calls of the official start script.

`POST /api/v0/sign_cert/?instance_id=<id>` answers a certificate request with a certificate for that instance's address;
`GET /static/jvastai_root.cer` is the root certificate for clients. Names in the request are ignored: the certificate
contains only the address that the marketplace lists for the instance.
"""

import asyncio
import ipaddress
import ssl
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engine.api.keys import presented, same_key
from engine.api.parsing import read_body
from engine.engine import Engine
from engine.openapi.declarations import text
from engine.routing.worker import KnownWorker
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Parameter, handles
from stoker_wire.parsing.ids import read_id
from stoker_wire.security.token import mint_worker_token

log = structlog.get_logger("engine.tls.certificate_authority")

CERTIFICATE_DAYS = 90
_ROOT_DAYS = 3650
_REQUEST_BYTES_MAX = 16 * 1024
_ADDRESS_SECONDS_MAX = 20.0
"""Start scripts ask within seconds after the instance starts, before the marketplace lists the address."""
_UNKNOWN_SECONDS_MAX = 3.0
"""An instance may be missing from its endpoint's memo for this time after it was created."""
_POLL_SECONDS = 0.2
WAITING_MAX = 128
"""Limit of waiting calls of unknown instances, because callers without a key are held too."""
WAITING_EACH_MAX = 8
"""Limit of waiting calls of one known instance: ids can be guessed, and the others must not wait for it."""
_RSA_BITS_MIN = 2048


class Authority:
    """Issues certificates. Engines with the same key are the same authority."""

    def __init__(self, key_pem: bytes) -> None:
        key = load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key must be an elliptic curve private key in PEM")  # noqa: TRY004
        self._key = key
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stoker workers")])
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        self.root_pem = self._root().public_bytes(Encoding.PEM)

    def __repr__(self) -> str:
        return f"<Authority {self._key_id.digest.hex()[:12]}>"

    def _root(self) -> x509.Certificate:
        usage = _usage(key_cert_sign=True, crl_sign=True)
        return (
            self._builder(self._name, self._key.public_key(), days=_ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issued_root(self, root_pem: bytes) -> bool:
        """Whether a root certificate has this authority's key. Each engine makes a certificate of its own."""
        try:
            key = x509.load_pem_x509_certificate(root_pem).public_key()
        except ValueError:
            return False
        return key == self._key.public_key()

    def issue(self, request_pem: bytes, address: str) -> bytes:
        """A certificate in PEM for the request's key and this address, an IP address or host name.

        Raises:
            Problem: 400, not a certificate request, or its key is too weak.
        """
        key = _requested_key(request_pem)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address[:64])])
        certificate = (
            self._builder(name, key, days=CERTIFICATE_DAYS)
            .add_extension(x509.SubjectAlternativeName([_general_name(address)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_id), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def _builder(
        self, name: x509.Name, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, *, days: int
    ) -> x509.CertificateBuilder:
        # Valid since an hour ago, because a worker's clock may be behind.
        now = datetime.now(UTC) - timedelta(hours=1)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=days))
        )


def worker_trust(ca_key_pem: bytes) -> ssl.SSLContext | None:
    """How to check a worker's certificate: it is of the system's authorities or of this one. None: there is no key."""
    if not ca_key_pem:
        return None
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=Authority(ca_key_pem).root_pem.decode())
    return context


class CertificateApi:
    """The calls of the certificate authority."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        pem = engine.settings.ca_key_pem
        self._authority = Authority(pem) if pem else None
        self.waiting: Counter[int | None] = Counter()
        """Waiting calls by instance id; None: those of instances that were unknown on arrival."""
        self._known_at = -1
        self._known: dict[int, tuple[int, KnownWorker]] = {}

    @handles(
        "GET /static/jvastai_root.cer",
        tag="certificates",
        replies=text("application/x-pem-file", "The root certificate"),
        refuses=(404,),
    )
    async def root(self, request: web.Request) -> web.Response:
        """The root certificate."""
        return web.Response(body=self._require_authority().root_pem, content_type="application/x-pem-file")

    @handles(
        "POST /api/v0/sign_cert/",
        tag="certificates",
        parameters=(Parameter(name="instance_id", about="CONTAINER_ID", type=int, required=True),),
        body_content_type="application/x-pem-file",
        replies=text("application/x-pem-file", "A certificate for the instance"),
        refuses=(400, 403, 404, 408, 413),
    )
    async def sign(self, request: web.Request) -> web.Response:
        """Issue a certificate for the calling instance."""
        authority = self._require_authority()
        instance_id = read_id(request.query.get("instance_id", ""))
        if instance_id is None:
            raise Problem(400, "invalid_args", "instance_id: must be the instance's number (CONTAINER_ID)")
        body = await read_body(request)
        if len(body) > _REQUEST_BYTES_MAX:
            raise Problem(
                413, "body_too_large", f"a certificate request must have at most {_REQUEST_BYTES_MAX} bytes"
            )
        address = self._known_address(request, instance_id)
        if address is None:
            _requested_key(body)  # reject an invalid request before the wait
            address = await self._wait_for_address(request, instance_id)
        certificate = authority.issue(body, address)
        log.info("certificate_issued", instance_id=instance_id, address=address)
        return web.Response(body=certificate, content_type="application/x-pem-file")

    def _require_authority(self) -> Authority:
        if self._authority is None:
            raise Problem(404, "no_authority", "this deployment has no certificate authority; set its key")
        return self._authority

    def _known_address(self, request: web.Request, instance_id: int) -> str | None:
        """The instance's address, if it is known.

        The official start script sends no key, so its call has to come from that address. A call with the worker's
        token as bearer key may come from anywhere.

        Raises:
            Problem: 403, the caller is not that instance.
        """
        endpoint_id, worker = self._worker(instance_id)
        if worker is None or not worker.listing.host:
            return None
        tokens = [
            mint_worker_token(secret, endpoint_id, worker.launch_id).encode()
            for secret in self._engine.settings.secrets
        ]
        shown = any(same_key(token, key) for key in presented(request) for token in tokens)
        if shown or _same_host(request.remote, worker.listing.host):
            return worker.listing.host
        raise Problem(
            403,
            "not_the_instance",
            "call from the instance's own address, or send Authorization: Bearer $MASTER_TOKEN",
        )

    async def _wait_for_address(self, request: web.Request, instance_id: int) -> str:
        """Wait until the instance's address is known. Calls of unknown instances wait too, with their own limit."""
        began = time.monotonic()
        waits_as = instance_id if self._worker(instance_id)[1] is not None else None
        self._count_waiting(waits_as)
        try:
            while (address := self._known_address(request, instance_id)) is None:
                here = self._worker(instance_id)[1] is not None
                if time.monotonic() - began > (_ADDRESS_SECONDS_MAX if here else _UNKNOWN_SECONDS_MAX):
                    what = "has no address yet" if here else "is unknown"
                    message = f"instance {instance_id} {what}; retry when the marketplace lists it"
                    raise Problem(404, "no_such_instance", message, headers={"Retry-After": "5"})
                await asyncio.sleep(_POLL_SECONDS)
            return address
        finally:
            self.waiting[waits_as] -= 1
            if not self.waiting[waits_as]:
                del self.waiting[waits_as]

    def _count_waiting(self, waits_as: int | None) -> None:
        if self.waiting[waits_as] >= (WAITING_MAX if waits_as is None else WAITING_EACH_MAX):
            message = "too many instances request a certificate at the same time; retry"
            raise Problem(503, "busy", message, headers={"Retry-After": "5"})
        self.waiting[waits_as] += 1

    def _worker(self, instance_id: int) -> tuple[int, KnownWorker | None]:
        directory = self._engine.directory
        if self._known_at != directory.version:
            self._known_at = directory.version
            self._known = {
                worker.instance_id: (endpoint.id, worker)
                for endpoint in directory
                for worker in endpoint.workers.values()
                if worker.listed and worker.instance_id
            }
        return self._known.get(instance_id, (0, None))


def _requested_key(request_pem: bytes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise Problem(
            400, "invalid_csr", "the body must be a certificate request in PEM format (openssl req -new)"
        ) from None
    if not signed:
        raise Problem(400, "invalid_csr", "the request must be signed with its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS_MIN:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key
    raise Problem(400, "invalid_csr", f"the key must be RSA of {_RSA_BITS_MIN} bits or more, or EC")


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        return x509.DNSName(address)


def _same_host(remote: str | None, host: str) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote) == ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})
