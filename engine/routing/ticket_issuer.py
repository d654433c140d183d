"""Signatures and tickets of route answers: the official signature of the url, and stoker's own ticket."""

import base64
import contextlib
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from activities.signing import open_signing_key
from stoker_wire.security.fingerprint import TICKET_CHARS
from stoker_wire.security.ticket import TICKET_SECONDS, Ticket, TicketRefused, sign_fields, verify_ticket
from stoker_wire.security.token import mint_worker_token, ticket_key

_CACHED_MAX = 20_000


class TicketIssuer:
    """Issues signatures and tickets. A signature takes 0.25 ms and never changes, so it is cached per url."""

    def __init__(self, *, secrets: tuple[bytes, ...], rsa_private_key_pem: bytes) -> None:
        key = load_pem_private_key(rsa_private_key_pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError(  # noqa: TRY004 - the setting is wrong, not its Python type
                "the signing key must be an RSA private key in PEM: official workers check RSA only"
            )
        self._key = key
        self._secrets = secrets
        self._signatures: dict[tuple[str, str], str] = {}
        self._ticket_keys: dict[tuple[int, str, bytes | None], tuple[bytes, ...]] = {}
        self.public_key_pem = _pem(key)

    def __repr__(self) -> str:
        return f"<TicketIssuer RSA-{self._key.key_size}, {len(self._signatures)} urls signed>"

    def signature(self, url: str, launch_id: str = "", sealed: str = "") -> str:
        """Base64 RSA PKCS#1 v1.5 SHA-256 over the url, in the JSON that the official worker builds.

        Signed with the launch's key if its worker reported on the launch's path, otherwise with the deployment's key.
        """
        signature = self._signatures.get((url, sealed))
        if signature is None:
            key = (self._opened(launch_id, sealed) if sealed else None) or self._key
            message = json.dumps({"url": url}, indent=4).encode()
            signed = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            if len(self._signatures) >= _CACHED_MAX:
                self._signatures.clear()
            signature = self._signatures[url, sealed] = base64.b64encode(signed).decode()
        return signature

    def public_key_of(self, launch_id: str, sealed: str) -> bytes | None:
        """The launch's public key in PEM; None: the key was not sealed by this deployment for this launch."""
        key = self._opened(launch_id, sealed)
        return _pem(key) if key is not None else None

    def _opened(self, launch_id: str, sealed: str) -> rsa.RSAPrivateKey | None:
        opened = (open_signing_key(secret, launch_id, sealed) for secret in self._secrets)
        return next((key for key in opened if key is not None), None)

    def ticket(
        self,
        *,
        endpoint_id: int,
        endpoint_name: str,
        launch_id: str,
        cost: float,
        request_idx: int,
        reqnum: int,
        now: float,
        secret: bytes | None = None,
        refused: tuple[str, ...] = (),
    ) -> str:
        """A signed ticket.

        Args:
            reqnum: a random number that makes the ticket unique over all engines.
            refused: fingerprints that the worker refuses.
            secret: the one of the worker's token; None: unknown, so the ticket is signed with each secret.
        """
        keys = self._keys_of(endpoint_id, launch_id, secret)
        expires = round(now + TICKET_SECONDS, 3)
        shown = tuple(each[:TICKET_CHARS] for each in refused) if refused else ()
        return sign_fields(endpoint_name, launch_id, cost, request_idx, reqnum, expires, shown, keys)

    def ticket_of(self, text: str, *, endpoint_id: int, launch_id: str) -> Ticket | None:
        """The contents of a ticket for this worker, expired or not; None: it was not issued by this deployment."""
        for key in self._keys_of(endpoint_id, launch_id, None):
            with contextlib.suppress(TicketRefused):
                return verify_ticket(text, key, worker=launch_id, now=0.0)
        return None

    def _keys_of(self, endpoint_id: int, launch_id: str, secret: bytes | None) -> tuple[bytes, ...]:
        cached = (endpoint_id, launch_id, secret)
        keys = self._ticket_keys.get(cached)
        if keys is None:
            if len(self._ticket_keys) >= _CACHED_MAX:
                self._ticket_keys.clear()
            keys = tuple(
                ticket_key(mint_worker_token(each, endpoint_id, launch_id))
                for each in (self._secrets if secret is None else (secret,))
            )
            self._ticket_keys[cached] = keys
        return keys


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
