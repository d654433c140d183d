"""One client's wrong keys lock its own address only."""

import pytest

from dashboard.pages.sign_in_limit import (
    ADDRESSES_MAX,
    ALL_WRONG_MAX,
    PRESSED_MAX,
    WINDOW_SECONDS,
    WRONG_MAX,
    SignInLimit,
    client_address,
)


def test_wrong_keys_lock_their_own_address_for_a_minute() -> None:
    limit = SignInLimit()
    for number in range(WRONG_MAX):
        assert limit.wait_seconds("10.0.0.1", float(number)) == 0.0
        limit.note_wrong("10.0.0.1", float(number))
    assert (
        limit.wait_seconds("10.0.0.1", 20.0) == 40.0
    )  # the first of 20 wrong keys was tried at 0, the window is 60 s
    assert limit.wait_seconds("10.0.0.2", 20.0) == 0.0
    assert limit.wait_seconds("10.0.0.1", WINDOW_SECONDS) == 0.0


def test_many_addresses_together_get_fewer_attempts_and_lock_no_new_address() -> None:
    limit = SignInLimit()
    for number in range(ALL_WRONG_MAX):
        limit.note_wrong(f"10.1.{number // PRESSED_MAX}.1", 0.0)
    assert limit.wait_seconds("10.1.0.1", 1.0) == 59.0
    assert limit.wait_seconds("192.0.2.7", 1.0) == 0.0
    limit.note_wrong("192.0.2.7", 1.0)
    assert limit.wait_seconds("192.0.2.7", 1.0) == 0.0  # one wrong key of two
    assert limit.wait_seconds("10.1.0.1", WINDOW_SECONDS + 1.0) == 0.0


def test_the_number_of_remembered_addresses_is_bounded() -> None:
    limit = SignInLimit()
    for number in range(ADDRESSES_MAX + 10):
        limit.note_wrong(str(number), 0.0)
    assert repr(limit) == f"<SignInLimit {ADDRESSES_MAX} addresses>"


@pytest.mark.parametrize(
    ("peer", "forwarded", "behind_proxy", "address"),
    [
        ("192.0.2.7", "", False, "192.0.2.7"),
        ("127.0.0.1", "198.51.100.1", False, "127.0.0.1"),  # no proxy: the field is a claim of the client
        ("127.0.0.1", "203.0.113.9, 198.51.100.1", True, "198.51.100.1"),
        ("8.8.8.8", "198.51.100.1", True, "8.8.8.8"),  # came past the proxy
        ("127.0.0.1", "no address", True, "127.0.0.1"),
        ("127.0.0.1", "", True, "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "", False, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", False, "fe80::/64"),
        ("::ffff:192.0.2.7", "", False, "192.0.2.7"),
        (None, "", False, ""),
    ],
)
def test_attempts_are_counted_by_the_client_that_the_nearest_trusted_hop_saw(
    peer: str | None, forwarded: str, behind_proxy: bool, address: str
) -> None:
    assert client_address(peer, forwarded, behind_proxy=behind_proxy) == address
