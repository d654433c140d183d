"""A signing key per launch, sealed in the address to which its worker reports."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from activities.signing import KEY_BITS, open_signing_key, report_address, sealed_signing_key

SECRET = b"sixteen bytes or more"
SEALED = sealed_signing_key(SECRET, "0123456789ab")


def test_a_sealed_key_opens_to_a_key_that_signs():
    key = open_signing_key(SECRET, "0123456789ab", SEALED)
    assert key is not None
    assert key.key_size == KEY_BITS
    signature = key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())


def test_every_engine_opens_the_same_key():
    one, other = (open_signing_key(SECRET, "0123456789ab", SEALED) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.public_key().public_numbers() == other.public_key().public_numbers()


def test_every_sealed_key_is_new():
    again = sealed_signing_key(SECRET, "0123456789ab")
    one, other = (open_signing_key(SECRET, "0123456789ab", sealed) for sealed in (SEALED, again))
    assert one is not None
    assert other is not None
    assert one.public_key().public_numbers().n != other.public_key().public_numbers().n


@pytest.mark.parametrize(
    ("secret", "launch_id", "sealed"),
    [
        (b"another secret, long", "0123456789ab", SEALED),
        (SECRET, "0123456789ac", SEALED),
        (SECRET, "0123456789ab", SEALED[:-8] + "AAAAAAAA"),
        (SECRET, "0123456789ab", SEALED[:-8]),
        (SECRET, "0123456789ab", ""),
        (SECRET, "0123456789ab", "no base64!"),
        (SECRET, "0123456789ab", "ü" * 20),
        (SECRET, "0123456789ab", "\ud800"),
        (SECRET, "0123456789ab", "A" * 100_000),
    ],
)
def test_a_key_sealed_elsewhere_or_for_another_launch_does_not_open(secret, launch_id, sealed):
    assert open_signing_key(secret, launch_id, sealed) is None


def test_the_sealed_key_does_not_contain_the_primes():
    key = open_signing_key(SECRET, "0123456789ab", SEALED)
    assert key is not None
    data = base64.urlsafe_b64decode(SEALED + "=" * (-len(SEALED) % 4))
    assert key.private_numbers().p.to_bytes(128, "big") not in data


def test_the_address_contains_launch_and_key_and_fits_a_header_line():
    address = report_address("https://engine.example:8443/base", "0123456789ab", SEALED)
    assert address == f"https://engine.example:8443/base/w/0123456789ab/{SEALED}"
    assert len(address) < 512


def test_without_an_engine_or_a_sealed_key_the_address_is_the_engines():
    assert report_address("", "0123456789ab", SEALED) == ""
    assert report_address("https://engine.example", "0123456789ab", "") == "https://engine.example"
