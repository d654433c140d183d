"""A signing key per launch, so that a route answer for one official worker is not valid for another.

The official worker fetches the public key from the address that it reports to, and checks only a signature of its url.
Therefore every launch has its own address, `<engine>/w/<launch id>/<sealed key>`, which contains the private key,
encrypted with the deployment's secret. Every engine can decrypt it, no engine has to store it, and nobody else can read
or change it.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BITS = 2048
_EXPONENT = 65537
_PRIME_BYTES = KEY_BITS // 16
_NONCE_BYTES = 12


def sealed_signing_key(secret: bytes, launch_id: str) -> str:
    """A new sealed key for the launch. Takes 0.1 s of CPU: call it in a thread."""
    numbers = rsa.generate_private_key(public_exponent=_EXPONENT, key_size=KEY_BITS).private_numbers()
    primes = b"".join(prime.to_bytes(_PRIME_BYTES, "big") for prime in (numbers.p, numbers.q))
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = nonce + AESGCM(_sealing_key(secret)).encrypt(nonce, primes, launch_id.encode())
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def open_signing_key(secret: bytes, launch_id: str, sealed: str) -> rsa.RSAPrivateKey | None:
    """The launch's key; None: it was not sealed with this secret for this launch."""
    try:
        data = base64.urlsafe_b64decode(sealed.encode() + b"==")
        primes = AESGCM(_sealing_key(secret)).decrypt(
            data[:_NONCE_BYTES], data[_NONCE_BYTES:], launch_id.encode()
        )
    except (binascii.Error, InvalidTag, ValueError):
        return None
    p, q = (int.from_bytes(half, "big") for half in (primes[:_PRIME_BYTES], primes[_PRIME_BYTES:]))
    d = rsa.rsa_recover_private_exponent(_EXPONENT, p, q)
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    # The encryption authenticates the primes, so the validation of the key is not needed.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def report_address(engine: str, launch_id: str, sealed: str) -> str:
    """The address to which the launch's worker reports (`REPORT_ADDR`)."""
    return f"{engine}/w/{launch_id}/{sealed}" if engine and sealed else engine


def _sealing_key(secret: bytes) -> bytes:
    return hmac.digest(secret, b"stoker signing key v1", hashlib.sha256)
