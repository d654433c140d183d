"""A signing key per launch, sealed into the address that its worker reports to."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from activities.signing import KEY_BITS, open_signing_key, report_address, sealed_signing_key

SECRET = b"sixteen bytes or more"
SEALED = sealed_signing_key(SECRET, "0123456789ab")


def test_what_is_sealed_is_opened_to_a_key_that_signs():
    key = open_signing_key(SECRET, "0123456789ab", SEALED)
    assert key is not None
    assert key.key_size == KEY_BITS
    signature = key.sign(b"message", padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())


def test_opening_it_twice_is_the_same_key_wherever_that_is():
    one, other = (open_signing_key(SECRET, "0123456789ab", SEALED) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.public_key().public_numbers() == other.public_key().public_numbers()


def test_every_sealing_is_a_new_key():
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
        (SECRET, "0123456789ab", "A" * 100_000),
    ],
)
def test_what_was_not_sealed_here_for_this_launch_is_no_key(secret, launch_id, sealed):
    assert open_signing_key(secret, launch_id, sealed) is None


def test_the_primes_are_not_readable_in_it():
    key = open_signing_key(SECRET, "0123456789ab", SEALED)
    assert key is not None
    data = base64.urlsafe_b64decode(SEALED + "=" * (-len(SEALED) % 4))
    assert key.private_numbers().p.to_bytes(128, "big") not in data


def test_the_address_holds_launch_and_key_and_fits_a_header_line():
    address = report_address("https://engine.example:8443/base", "0123456789ab", SEALED)
    assert address == f"https://engine.example:8443/base/w/0123456789ab/{SEALED}"
    assert len(address) < 512
